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

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine/wire"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Machine is a booted machine.
type Machine struct {
	Name string

	Fixture *fixture.Fixture // fixture of the test, with the API server

	// Exchange is the directory of this machine that is /run/e2e in a container.
	Exchange string

	t       testing.TB
	host    string // host name of a container
	link    *link
	slow    time.Duration // factor by which the machine is slower than this one
	console string        // file with the output of the console
	root    string        // directory of this machine with the files of a container
	groups  cgroups       // control groups of a container
	done    chan struct{} // closed when its process has exited
	stop    func()
	monitor func(command string) error // of the emulator; nil in a container
	boot    time.Duration              // limit for a boot
}

// patience is the limit for actions that normally take a moment.
const patience = 30 * time.Second

// For returns the machine for a subtest, which fails if an action fails.
func (m *Machine) For(t testing.TB) *Machine {
	c := *m
	c.t, c.Fixture = t, m.Fixture.For(t)
	return &c
}

// Context returns a context with a generous time limit. It is not cancelled at the end of the
// test, so that cleanups can still get information from the machine.
func (m *Machine) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.t.Context()), patience*m.slow)
	m.t.Cleanup(cancel)
	return ctx
}

// Run runs a script with bash in the machine. It returns its exit code and its output,
// including standard error.
func (m *Machine) Run(ctx context.Context, script string) (out string, code int, err error) {
	return m.link.run(ctx, script, nil)
}

// Alive reports whether the machine still runs scripts.
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

// Await repeats a script until it succeeds, and returns its output.
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
		m.t.Fatalf("timeout while waiting until %s: %s: exit code %d, %v\n%s", what, script, code, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// Put writes a file in the machine. It creates missing directories.
func (m *Machine) Put(path string, mode fs.FileMode, data []byte) {
	m.t.Helper()
	script := fmt.Sprintf("set -e; p='%s'; mkdir -p \"${p%%/*}\"; install -m %o /dev/null \"$p.new\"; cat >\"$p.new\"; mv \"$p.new\" \"$p\"", path, mode.Perm())
	m.feed(script, data)
}

// feed runs a script with data as its standard input. The script must succeed.
func (m *Machine) feed(script string, data []byte) {
	m.t.Helper()
	out, code, err := m.link.run(m.Context(), script, data)
	if code != 0 || err != nil {
		m.t.Fatalf("%s: exit code %d, %v\n%s", script, code, err, out)
	}
}

// Outside returns the path on this machine of a file of a container.
func (m *Machine) Outside(path string) string {
	m.t.Helper()
	if m.root == "" {
		m.t.Fatal("a virtual machine has no files on this machine")
	}
	return filepath.Join(m.root, path)
}

// Property returns a property of a unit, from systemctl show.
func (m *Machine) Property(unit, name string) string {
	m.t.Helper()
	return m.Do("systemctl show --value -p " + name + " " + unit)
}

// Journal returns the messages of a unit in this boot, one per line.
func (m *Machine) Journal(unit string, args ...string) string {
	m.t.Helper()
	return m.Do("journalctl --sync; journalctl -b --no-pager -o cat -u " + unit + " " + strings.Join(args, " "))
}

// unitFile matches the start of a message of systemd about a line in one of our unit files or
// drop-ins, in the form of systemd 240 and newer ("/path:50: ...") or of older versions
// ("[/path:50] ...").
var unitFile = regexp.MustCompile(`^\[?/[^ :]*/(clientmountd|nnf-dm|nnf-clientmount)\.(service|socket)(\.d/[^ :]*)?:[0-9]+[:\]]`)

// UnitWarnings returns the warnings and errors of systemd in this boot about lines in our unit
// files.
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

// settle waits until the machine has finished booting, and logs failed units.
func (m *Machine) settle() {
	m.t.Helper()
	out, code, err := m.Run(m.Context(), "command -v udevadm >/dev/null && ! systemd-detect-virt -qc && udevadm settle; systemctl is-system-running --wait")
	if err != nil {
		m.t.Fatal("the machine did not finish booting: ", err)
	}
	if state := strings.TrimSpace(out); code != 0 && state != "running" {
		failed, _, _ := m.Run(m.Context(), "systemctl --failed --no-legend --plain")
		m.t.Logf("the machine %s is %s: %s", m.Name, state, failed)
	}
}

// Reboot reboots the machine cleanly.
func (m *Machine) Reboot() {
	m.t.Helper()
	m.restart(func() error {
		_, _, err := m.Run(m.Context(), "systemctl reboot")
		return err
	})
}

// PowerCut resets the virtual machine without a shutdown. Data that was not written to the
// disk is lost.
func (m *Machine) PowerCut() {
	m.t.Helper()
	if m.monitor == nil {
		m.t.Fatal("PowerCut needs a virtual machine")
	}
	m.restart(func() error { return m.monitor("system_reset") })
}

func (m *Machine) restart(request func() error) {
	m.t.Helper()
	n := m.link.bootCount()
	started := time.Now()
	// The error is ignored if the machine boots, because the answer can get lost.
	requestErr := request()
	ctx, cancel := context.WithTimeout(m.t.Context(), m.boot)
	defer cancel()
	if err := m.link.awaitBoot(ctx, n+1); err != nil {
		m.t.Fatalf("%v (error of the request: %v)\n%s", err, requestErr, m.tail())
	}
	m.settle()
	m.t.Logf("rebooted in %.1f s", time.Since(started).Seconds())
}

// tail returns the end of the output on the console.
func (m *Machine) tail() string {
	data, _ := os.ReadFile(m.console)
	return string(data[max(0, len(data)-4000):])
}

var errRebooted = errors.New("the machine has rebooted")

// maxOutput is the size in bytes after which further output of a script is discarded.
const maxOutput = 8 << 20

// link is the connection to the agent in the machine. It survives a reboot if the underlying
// connection does.
type link struct {
	conn net.Conn
	out  *wire.Writer

	mu      sync.Mutex
	last    int
	calls   map[int]*call
	boots   []string      // boot IDs, in order
	changed chan struct{} // closed and replaced when boots or err changes
	err     error         // why the link is closed
}

type call struct {
	out  bytes.Buffer
	code int
	err  error
	done chan struct{}
}

// dial connects to a Unix socket, which may not exist yet.
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
			err = errors.New("the connection to the machine is closed")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
		l.abandon(err)
		l.wake()
	}()
	return l, nil
}

// handle processes a message from the guest.
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
		return // the caller no longer waits
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

// awaitBoot waits for the agent of the nth boot, counted from 1.
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

// run runs a script with bash and returns its output and exit code. It kills the script when
// ctx is done.
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
	return c.out.String(), -1, fmt.Errorf("the script did not finish: %w", ctx.Err())
}
