package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine/wire"
)

var errRebooted = errors.New("the machine has started anew meanwhile")

// maxOutput of one script is kept; the rest is lost, and the output says so.
const maxOutput = 8 << 20

// link is the connection to the agent inside. It outlives a reboot when what
// carries it does.
type link struct {
	conn net.Conn
	out  *wire.Writer

	mu      sync.Mutex
	last    int
	calls   map[int]*call
	boots   []string      // ids, in order
	changed chan struct{} // closed and replaced when boots grows or the link ends
	err     error         // why the link has ended
}

type call struct {
	out  bytes.Buffer
	code int
	err  error
	done chan struct{}
}

// dial connects to a unix socket that is about to be there.
func dial(ctx context.Context, path string) (*link, error) {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return newLink(conn)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("nobody listens inside the machine: %w (%w)", err, ctx.Err())
		}
	}
}

func newLink(conn net.Conn) (*link, error) {
	l := &link{conn: conn, calls: map[int]*call{}, changed: make(chan struct{})}
	var err error
	if l.out, err = wire.NewWriter(conn); err != nil {
		return nil, err
	}
	go func() {
		err := wire.Read(conn, l.handle)
		if err == nil {
			err = errors.New("the connection to the machine has ended")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
		l.abandon(err)
		l.wake()
	}()
	return l, nil
}

// handle takes a message of the guest.
func (l *link) handle(m wire.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Hello != "" {
		l.boots = append(l.boots, m.Hello)
		l.abandon(errRebooted)
		l.wake()
		return
	}
	c := l.calls[m.Call]
	if c == nil {
		return // of somebody who has given up
	}
	if c.out.Len() < maxOutput {
		c.out.Write(m.Out)
	}
	if m.Done {
		delete(l.calls, m.Call)
		c.code = m.Code
		close(c.done)
	}
}

func (l *link) abandon(err error) {
	for number, c := range l.calls {
		c.err = err
		close(c.done)
		delete(l.calls, number)
	}
}

func (l *link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// awaitBoot waits for the agent of the nth boot, counted from one.
func (l *link) awaitBoot(ctx context.Context, n int) error {
	for {
		l.mu.Lock()
		count, err, changed := len(l.boots), l.err, l.changed
		l.mu.Unlock()
		switch {
		case count >= n:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no boot number %d: %w", n, ctx.Err())
		}
	}
}

func (l *link) bootCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.boots)
}

// run has bash run the script and returns its output and exit code. When ctx
// ends, so does the script.
func (l *link) run(ctx context.Context, script string, stdin []byte) (out string, code int, err error) {
	c := &call{done: make(chan struct{})}
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return "", -1, l.err
	}
	l.last++
	number := l.last
	l.calls[number] = c
	l.mu.Unlock()
	if err := errors.Join(l.out.SendInput(number, stdin), l.out.Send(wire.Message{Call: number, Script: script})); err != nil {
		return "", -1, err
	}
	select {
	case <-c.done:
		return c.out.String(), c.code, c.err
	case <-ctx.Done():
	}
	_ = l.out.Send(wire.Message{Call: number, Kill: true})
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, number)
	return c.out.String(), -1, fmt.Errorf("the script did not end: %w", ctx.Err())
}
