// Command reference simulates compute nodes with a client that works the way of the
// reference clientmountd: discovery at each start, shared informers of client-go for the
// ClientMounts of two namespaces, another one for storage profiles that starts with the
// first mount, updates of whole objects, and 20 requests per second at most. Each node has
// its own connection. Nothing is mounted.
//
// fleetsim starts it to compare the load of the API server. It reads commands from standard
// input and writes what happens to standard output, one JSON object per line, and ends with
// its standard input. It is a module of its own because of its version of client-go.
//
// It is written from the observed requests of the reference daemon. It must not know the
// daemons of this repository.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"k8s.io/klog/v2"
)

// command is a line of standard input.
type command struct {
	Do    string `json:"do"`    // start, stop, counts or collect
	Node  int    `json:"node"`  // of start: its number
	Name  string `json:"name"`  // of start: the name of the node and of its namespace
	Token string `json:"token"` // of start: file with the token
}

// event is a line of standard output.
type event struct {
	Event string `json:"event"`
	Node  int    `json:"node"`
	At    int64  `json:"at"` // nanoseconds since 1970

	Method string `json:"method,omitempty"` // of a request
	URL    string `json:"url,omitempty"`
	Status int    `json:"status,omitempty"` // 0: no response

	Sent      int64 `json:"sent,omitempty"` // of counts: since the start of the node
	Received  int64 `json:"received,omitempty"`
	Bookmarks int64 `json:"bookmarks,omitempty"`

	Process int    `json:"process,omitempty"` // of done: its process ID
	Error   string `json:"error,omitempty"`
}

func main() {
	server := flag.String("server", "", "URL of the API server")
	ca := flag.String("ca", "", "file with the certificate authority of the API server")
	flag.Parse()
	log := flag.NewFlagSet("", flag.PanicOnError)
	klog.InitFlags(log)
	_ = log.Parse([]string{"--logtostderr=false", "--stderrthreshold=FATAL"})
	klog.SetOutput(io.Discard)
	if err := run(*server, *ca, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

// run executes the commands until the end of the input. A command other than start is
// answered by an event "done", after the events that it causes.
func run(server, ca string, in io.Reader, out io.Writer) error {
	events := make(chan event, 1000)
	written := make(chan error, 1)
	go func() { written <- write(out, events) }()
	emit := func(e event) { events <- e }
	nodes := map[int]*node{}
	stop := func() {
		for _, n := range nodes {
			n.cancel()
		}
		for _, n := range nodes {
			n.wait()
		}
		clear(nodes)
	}
	for d := json.NewDecoder(in); ; {
		var c command
		if err := d.Decode(&c); err == io.EOF {
			stop()
			emit(event{Event: "end"}) // not closed: a late goroutine may send
			return <-written
		} else if err != nil {
			return err
		}
		switch c.Do {
		case "start":
			nodes[c.Node] = start(server, ca, c, emit)
			continue
		case "stop":
			stop()
		case "counts":
			for i, n := range nodes {
				emit(event{Event: "counts", Node: i, Sent: n.sent.Load(), Received: n.received.Load(), Bookmarks: n.bookmarks.Load()})
			}
		case "collect": // returns unused memory to the kernel
			runtime.GC()
			debug.FreeOSMemory()
		default:
			return fmt.Errorf("unknown command %q", c.Do)
		}
		emit(event{Event: "done", Process: os.Getpid()})
	}
}

// write writes the events, and flushes them when no other event follows at once. After an
// error it discards them, so that no node waits.
func write(out io.Writer, events <-chan event) (err error) {
	w := bufio.NewWriterSize(out, 64<<10)
	lines := json.NewEncoder(w)
	for e := range events {
		if e.Event == "end" {
			return errors.Join(err, w.Flush())
		}
		if err == nil {
			err = lines.Encode(e)
		}
		if err == nil && len(events) == 0 {
			err = w.Flush()
		}
	}
	return err
}
