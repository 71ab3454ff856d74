package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// referenceProgram is the name of the program in the directory reference.
const referenceProgram = "fleetsim-reference"

// reference is the process that runs the nodes of the reference fleet. It reports what its
// nodes do, and their traffic, times and mounts are recorded in the simulated nodes of this
// process, so that all scenarios work with both fleets.
type reference struct {
	stdin   io.WriteCloser
	pid     atomic.Int64
	closing atomic.Bool // the end of the process is expected
	ended   chan struct{}

	calls sync.Mutex    // held from an instruction to its answer
	done  chan struct{} // an answer

	mu      sync.Mutex // of what follows
	nodes   []*simulated
	daemons []*running // of the nodes that run
	errors  *errorLog
}

// instruction is a line of the standard input of the process.
type instruction struct {
	Do    string `json:"do"`
	Node  int    `json:"node"`
	Name  string `json:"name,omitempty"`
	Token string `json:"token,omitempty"`
}

// occurrence is a line of its standard output.
type occurrence struct {
	Event     string `json:"event"`
	Node      int    `json:"node"`
	At        int64  `json:"at"`
	Method    string `json:"method"`
	URL       string `json:"url"`
	Status    int    `json:"status"`
	Sent      int64  `json:"sent"`
	Received  int64  `json:"received"`
	Bookmarks int64  `json:"bookmarks"`
	Process   int    `json:"process"` // of done: its process ID
	Error     string `json:"error"`
}

// startReference starts the process for the nodes of f. failed is called if the process
// ends before close.
func startReference(l *lab.Lab, f *fleet, failed func(error)) (*reference, error) {
	program, err := lab.Binary(referenceProgram)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "--server=https://"+f.server.Address, "--ca="+f.server.Cert)
	p := &reference{ended: make(chan struct{}), done: make(chan struct{}), nodes: f.nodes, daemons: make([]*running, len(f.nodes)), errors: &f.errors}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	go func() { write.CloseWithError(errors.Join(l.Run(cmd), io.EOF)) }()
	go func() {
		defer close(p.ended)
		err := p.read(read)
		read.CloseWithError(err)
		if !p.closing.Load() {
			failed(fmt.Errorf("%s has ended: %w", referenceProgram, err))
		}
	}()
	return p, p.call("collect")
}

// read records the events until the end of the process.
func (p *reference) read(r io.Reader) error {
	lines := json.NewDecoder(r)
	for {
		var o occurrence
		if err := lines.Decode(&o); err != nil {
			return err
		}
		if o.Event == "done" {
			p.pid.Store(int64(o.Process))
			p.done <- struct{}{}
			continue
		}
		if o.Node < 0 || o.Node >= len(p.nodes) {
			return fmt.Errorf("unknown node %d", o.Node)
		}
		if err := p.record(o); err != nil {
			return err
		}
	}
}

// record records an event. It ignores those of an earlier daemon of the node.
func (p *reference) record(o occurrence) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, s, at := p.daemons[o.Node], p.nodes[o.Node], time.Unix(0, o.At)
	if d == nil || o.At != 0 && at.Before(d.started) {
		return nil
	}
	switch o.Event {
	case "connection":
		d.mu.Lock()
		d.connected = append(d.connected, at)
		d.mu.Unlock()
	case "request":
		u, err := url.Parse(o.URL)
		if err != nil {
			return err
		}
		d.requests[classOf(&http.Request{Method: o.Method, URL: u})].Add(1)
		if o.Status == 0 {
			d.failed[failureOf(nil)].Add(1)
		} else if o.Status >= 400 {
			d.failed[failureOf(&http.Response{StatusCode: o.Status})].Add(1)
		}
	case "ready":
		d.ready = at
		close(d.synced)
	case "follows":
		d.setFollowing(at)
	case "lost":
		d.setFollowing(time.Time{})
	case "counts":
		d.sent.Store(o.Sent)
		d.received.Store(o.Received)
		d.bookmarks.Store(o.Bookmarks)
	case "mounted":
		s.machine.set(true)
	case "unmounted":
		s.machine.set(false)
	case "failed":
		slog.New(p.errors).Error(s.name + ": " + o.Error)
	default:
		return fmt.Errorf("unknown event %q", o.Event)
	}
	return nil
}

// set replaces the commands that mount or unmount the file system of the job.
func (m *machine) set(mounted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.table = nil; mounted {
		m.mounts++
		m.table = []node.Mount{{}}
	}
}

func (p *reference) send(i instruction) error {
	line, err := json.Marshal(i)
	if err != nil {
		return err
	}
	_, err = p.stdin.Write(append(line, '\n'))
	return err
}

// call sends an instruction and waits until it is done. All events before are recorded
// then.
func (p *reference) call(do string) error {
	p.calls.Lock()
	defer p.calls.Unlock()
	if err := p.send(instruction{Do: do}); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-p.ended:
		return io.ErrUnexpectedEOF
	}
}

// start starts the daemon of a node.
func (p *reference) start(s *simulated) error {
	i := slices.Index(p.nodes, s)
	s.daemon = &running{traffic: newTraffic(), started: time.Now(), synced: make(chan struct{})}
	p.mu.Lock()
	p.daemons[i] = s.daemon
	p.mu.Unlock()
	p.calls.Lock()
	defer p.calls.Unlock()
	return p.send(instruction{Do: "start", Node: i, Name: s.name, Token: s.tokenFile()})
}

// stopAll stops all daemons.
func (p *reference) stopAll() error {
	err := p.call("stop")
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.daemons)
	for _, s := range p.nodes {
		s.daemon = nil
	}
	return err
}

// usage returns the resource usage of the process; without a process it is zero.
func (p *reference) usage() (lab.Usage, error) {
	if p == nil {
		return lab.Usage{}, nil
	}
	return lab.ReadUsage(int(p.pid.Load()))
}

// close ends the process.
func (p *reference) close() {
	p.closing.Store(true)
	_ = p.stdin.Close()
	<-p.ended
}
