// Package fakedaemon is a Copy Offload daemon for tests of clients: it copies
// nothing, and what becomes of a request is in its source path. It speaks both
// versions of the API, or version 1 alone like daemons of before.
//
// It must not know its clients.
package fakedaemon

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Daemon listens until Stop.
type Daemon struct {
	Socket string
	old    bool
	server *grpc.Server

	mu        sync.Mutex
	log       []string
	movements map[string]*movement
	count     int
	changed   chan struct{} // closed when a movement changes
}

// Start listens on a socket that does not exist yet. An old daemon has no
// version 2.
func Start(socket string, old bool) (*Daemon, error) {
	d := &Daemon{Socket: socket, old: old, movements: make(map[string]*movement), changed: make(chan struct{})}
	return d, d.Resume()
}

// Stop cuts all calls off and takes the socket away. The movements stay.
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

// Log returns the calls so far, one line each.
func (d *Daemon) Log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// note writes the log; the lock is held. The space between the fields of a
// message differs from build to build, so it is made the same.
func (d *Daemon) note(format string, args ...any) {
	d.log = append(d.log, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// Finish lets all movements that are held end well.
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

// wake tells those who wait; the lock is held.
func (d *Daemon) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}
