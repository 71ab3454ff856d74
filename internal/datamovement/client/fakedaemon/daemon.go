// Package fakedaemon is a Copy Offload daemon for tests of clients. It copies nothing;
// the last component of the source path selects the outcome of a request. It serves
// both versions of the API, or version 1 only, like earlier daemons.
//
// It must not know its clients.
package fakedaemon

import (
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Daemon is a fake daemon that listens until Stop.
type Daemon struct {
	Socket string
	old    bool
	server *grpc.Server

	mu        sync.Mutex
	version   string
	log       []string
	movements map[string]*movement
	count     int
	limit     time.Duration // of the last creation of a batch
	changed   chan struct{} // closed when a movement changes
}

// Start starts a daemon on a socket that does not exist yet. An old daemon has no
// version 2 of the API.
func Start(socket string, old bool) (*Daemon, error) {
	d := &Daemon{Socket: socket, old: old, version: "v9.9.9", movements: make(map[string]*movement), changed: make(chan struct{})}
	return d, d.Resume()
}

// Stop ends all calls and removes the socket. It keeps the movements.
func (d *Daemon) Stop() { d.server.Stop() }

// Resume listens again.
func (d *Daemon) Resume() error {
	if err := os.Remove(d.Socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	l, err := net.Listen("unix", d.Socket)
	if err != nil {
		return err
	}
	d.server = grpc.NewServer()
	pb.RegisterDataMoverServer(d.server, version1{d: d})
	if !d.old {
		pb2.RegisterDataMoverServer(d.server, version2{d: d})
	}
	go d.server.Serve(l)
	return nil
}

// SetVersion sets the version that the daemon reports.
func (d *Daemon) SetVersion(version string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version = version
}

// Log returns the calls so far, one line each.
func (d *Daemon) Log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// CreateLimit returns the time that the client of the last CreateBatch gave it, 0 without a
// limit.
func (d *Daemon) CreateLimit() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit
}

// note adds a line to the log; the lock is held. It normalizes the space between the
// fields of a message, which differs from build to build.
func (d *Daemon) note(format string, args ...any) {
	d.log = append(d.log, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// Finish ends all movements successfully, including those that are held.
func (d *Daemon) Finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.movements {
		if !m.ended() {
			m.step = len(m.script) - 1
			m.held = false
		}
	}
	d.wake()
}

// wake reports a change to all waiting calls; the lock is held.
func (d *Daemon) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Escapes is a text that would change the title and the colours of a terminal and, on
// some terminals, inject input. It is the output of the copying command for a source
// named "escape".
const Escapes = "\x1b]0;owned\x07\x1b[31mred \u009b5n \u202ereversed\xff\r\nnext"

// movement is one request and its outcome.
type movement struct {
	uid, batch, source, destination string
	script                          []step
	step                            int
	held                            bool // stays at its step until Finish
	cancelling                      bool
}

// step is one status.
type step struct {
	state   pb2.MovementState
	result  pb2.MovementResult
	percent int32
	last    string
	message string
	rate    string
}

const (
	running   = pb2.MovementState_MOVEMENT_STATE_RUNNING
	completed = pb2.MovementState_MOVEMENT_STATE_COMPLETED
	success   = pb2.MovementResult_MOVEMENT_RESULT_SUCCESS
	failed    = pb2.MovementResult_MOVEMENT_RESULT_FAILED
	invalid   = pb2.MovementResult_MOVEMENT_RESULT_INVALID
	cancelled = pb2.MovementResult_MOVEMENT_RESULT_CANCELLED
	deleted   = pb2.MovementResult_MOVEMENT_RESULT_DELETED
)

var half = step{state: running, percent: 50, last: "Copied 1.000 GiB (50%) in 2.000 secs (512.000 MiB/s) 2 secs left ...\n"}

// Stamped is a line of a dcp that prints a time stamp before its progress. It is the
// last message for a source named "stamped".
const Stamped = "[2026-03-02T08:15:42] Copied 12.250 GiB (49%) in 9.104 secs (1.346 GiB/s) 10 secs left ..."

// scriptOf returns the steps of a request, by the last component of its source.
func scriptOf(source string) (script []step, held bool) {
	pending := step{state: pb2.MovementState_MOVEMENT_STATE_PENDING}
	end := func(result pb2.MovementResult, message string) step {
		return step{state: completed, result: result, message: message, percent: 100, last: "Copied 2.000 GiB (100%) in 4.000 secs (512.000 MiB/s) done\n"}
	}
	good := end(success, "")
	switch word := path.Base(strings.TrimRight(source, "/")); word {
	case "hold":
		return []step{half, good}, true
	case "stubborn":
		return []step{half, good}, true
	case "stamped":
		return []step{{state: running, percent: 49, last: Stamped + "\n"}, good}, true
	case "pending":
		return []step{pending, good}, true
	case "fail":
		return []step{pending, half, end(failed, "exit status 1: disk quota exceeded")}, false
	case "unfit":
		return []step{pending, end(invalid, "no such storage")}, false
	case "cancelled":
		return []step{pending, end(cancelled, "")}, false
	case "deleted":
		return []step{pending, end(deleted, "")}, false
	case "output":
		return []step{half, end(success, "line one\nline two\n")}, false
	case "escape":
		s := half
		s.last = Escapes
		bad := end(failed, Escapes)
		bad.last = Escapes
		return []step{s, bad}, false
	default:
		return []step{pending, half, good}, false
	}
}

func (m *movement) now() step { return m.script[m.step] }

func (m *movement) ended() bool { return m.now().state == completed }

// advance moves to the next step, unless the movement is held.
func (m *movement) advance() {
	if !m.held && m.step < len(m.script)-1 {
		m.step++
	}
}

// cancel makes the movement end as cancelled in the next step.
func (m *movement) cancel() {
	if m.ended() || m.cancelling {
		return
	}
	s := m.now()
	s.state = pb2.MovementState_MOVEMENT_STATE_CANCELLING
	m.script = []step{s, {state: completed, result: cancelled, percent: s.percent, last: s.last}}
	m.step, m.held, m.cancelling = 0, path.Base(m.source) == "stubborn", true
}
