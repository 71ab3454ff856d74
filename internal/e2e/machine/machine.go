package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine/wire"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Machine is a machine that has booted.
type Machine struct {
	Name string

	World *world.World // what it belongs to, with the API server

	// Exchange is the directory outside that a container has as /run/e2e.
	Exchange string

	t       testing.TB
	host    string // a container's host name
	link    *link
	slow    time.Duration // how many times longer things take than on this machine
	console string        // file with what came out of it
	root    string        // where this machine has the files of a container
	groups  cgroups       // of a container
	done    chan struct{} // closed when its process has ended
	stop    func()
	monitor func(command string) error // of the emulator; nil in a container
	boot    time.Duration              // how long one may take
}

// patience bounds what should take a moment.
const patience = 30 * time.Second

// For returns the machine for a subtest: what fails then fails there.
func (m *Machine) For(t testing.TB) *Machine {
	c := *m
	c.t, c.World = t, m.World.For(t)
	return &c
}

// Context ends when something has taken far too long; not with the test, at
// whose end it may be told what the machine knows.
func (m *Machine) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.t.Context()), patience*m.slow)
	m.t.Cleanup(cancel)
	return ctx
}

// Run has bash run a script inside and returns its output, standard error
// included, and its exit code.
func (m *Machine) Run(ctx context.Context, script string) (out string, code int, err error) {
	return m.link.run(ctx, script, nil)
}

// Alive tells whether the machine still runs scripts.
func (m *Machine) Alive() bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience*m.slow)
	defer cancel()
	_, code, err := m.Run(ctx, ":")
	return code == 0 && err == nil
}

// Do runs a script that must succeed and returns its output without the last
// newline.
func (m *Machine) Do(script string) string {
	m.t.Helper()
	out, code, err := m.Run(m.Context(), script)
	if code != 0 || err != nil {
		m.t.Fatalf("%s: exit code %d, %v\n%s", script, code, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// Await runs a script until it succeeds, and returns its output then.
func (m *Machine) Await(what, script string) string {
	m.t.Helper()
	ctx := m.Context()
	var (
		out  string
		code int
		err  error
	)
	if end := wait.For(ctx, what, func() (bool, error) {
		out, code, err = m.Run(ctx, script)
		return code == 0 && err == nil, nil
	}); end != nil {
		m.t.Fatalf("waited in vain until %s: %s: exit code %d, %v\n%s", what, script, code, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// Put writes a file inside; directories above it are made.
func (m *Machine) Put(path string, mode fs.FileMode, data []byte) {
	m.t.Helper()
	script := fmt.Sprintf("set -e; p='%s'; mkdir -p \"${p%%/*}\"; install -m %o /dev/null \"$p.new\"; cat >\"$p.new\"; mv \"$p.new\" \"$p\"", path, mode.Perm())
	m.feed(script, data)
}

// feed runs a script that reads data and must succeed.
func (m *Machine) feed(script string, data []byte) {
	m.t.Helper()
	out, code, err := m.link.run(m.Context(), script, data)
	if code != 0 || err != nil {
		m.t.Fatalf("%s: exit code %d, %v\n%s", script, code, err, out)
	}
}

// Outside is where this machine has a file of a container.
func (m *Machine) Outside(path string) string {
	m.t.Helper()
	if m.root == "" {
		m.t.Fatal("the files of a virtual machine are on its disk")
	}
	return filepath.Join(m.root, path)
}

// Property is a property of a unit as systemctl show says it.
func (m *Machine) Property(unit, name string) string {
	m.t.Helper()
	return m.Do("systemctl show --value -p " + name + " " + unit)
}

// Journal returns messages of a unit of this boot, one a line.
func (m *Machine) Journal(unit string, args ...string) string {
	m.t.Helper()
	return m.Do("journalctl --sync; journalctl -b --no-pager -o cat -u " + unit + " " + strings.Join(args, " "))
}

// unitFile is the beginning of what systemd logs about a line of one of our unit
// files or drop-ins, in the form of 240 and newer ("/path:50: ...") or before
// ("[/path:50] ...").
var unitFile = regexp.MustCompile(`^\[?/[^ :]*/(clientmountd|nnf-dm|nnf-clientmount)\.(service|socket)(\.d/[^ :]*)?:[0-9]+[:\]]`)

// UnitWarnings are the warnings and errors of this boot in which systemd names a
// line of one of our unit files.
func (m *Machine) UnitWarnings() (found []string) {
	m.t.Helper()
	out := m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -p warning _PID=1")
	for line := range strings.SplitSeq(out, "\n") {
		if unitFile.MatchString(line) {
			found = append(found, line)
		}
	}
	return found
}

// settle waits until the machine has done what it does at boot; a unit that
// has failed is told to the test.
func (m *Machine) settle() {
	m.t.Helper()
	out, code, err := m.Run(m.Context(), "command -v udevadm >/dev/null && ! systemd-detect-virt -qc && udevadm settle; systemctl is-system-running --wait")
	if err != nil {
		m.t.Fatal("the machine does not come to rest: ", err)
	}
	if state := strings.TrimSpace(out); code != 0 && state != "running" {
		failed, _, _ := m.Run(m.Context(), "systemctl --failed --no-legend --plain")
		m.t.Logf("the machine %s is %s: %s", m.Name, state, failed)
	}
}

// Reboot starts the machine again, the orderly way.
func (m *Machine) Reboot() {
	m.t.Helper()
	m.restart(func() error {
		_, _, err := m.Run(m.Context(), "systemctl reboot")
		return err
	})
}

// PowerCut starts the virtual machine again without a word to its kernel. What
// was not written is lost.
func (m *Machine) PowerCut() {
	m.t.Helper()
	if m.monitor == nil {
		m.t.Fatal("a container has no power to cut")
	}
	m.restart(func() error { return m.monitor("system_reset") })
}

func (m *Machine) restart(how func() error) {
	m.t.Helper()
	n := m.link.bootCount()
	began := time.Now()
	// The answer may get lost with the machine; the next boot is what counts.
	how1 := how()
	ctx, cancel := context.WithTimeout(m.t.Context(), m.boot)
	defer cancel()
	if err := m.link.awaitBoot(ctx, n+1); err != nil {
		m.t.Fatalf("%v (asked for it: %v)\n%s", err, how1, m.tail())
	}
	m.settle()
	m.t.Logf("rebooted in %.1f s", time.Since(began).Seconds())
}

// tail is the end of what the machine has said on its console.
func (m *Machine) tail() string {
	data, _ := os.ReadFile(m.console)
	return string(data[max(0, len(data)-4000):])
}

var errRebooted = errors.New("the machine has rebooted meanwhile")

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
	var conn net.Conn
	var err error
	if end := wait.For(ctx, "the agent of the machine", func() (bool, error) {
		conn, err = net.Dial("unix", path)
		return err == nil, nil
	}); end != nil {
		return nil, fmt.Errorf("%w (%w)", end, err)
	}
	return newLink(conn)
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
		return // the caller has given up
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
