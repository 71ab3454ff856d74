package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Spec describes how to start a program. The process gets a small environment with the
// fake tools first in PATH.
type Spec struct {
	Program  string        // a name in the bin directory of the repository, or a path; default: clientmountd
	Wrap     []string      // a command that executes the program, for example unshare with arguments
	API      API           // for daemons; the zero value adds no arguments
	Node     string        // node name of the daemon, with API
	Args     []string      // additional arguments; they override earlier flags
	Env      []string      // additional environment variables
	Watchdog time.Duration // WATCHDOG_USEC, if not zero
	NoNotify bool          // no NOTIFY_SOCKET
	Listen   *os.File      // a listening socket, passed as by systemd
	Stdin    bool          // standard input is a pipe, which Process.CloseStdin closes
}

// API has the address of the API server and the credentials for a daemon.
type API struct {
	Address string // host:port
	Cert    string // file with the certificate authority
	Tokens  string // directory with DAEMON/service.token

	Kubeconfig string // instead of the other three
}

// flags returns the arguments of the program.
func (s Spec) flags() ([]string, error) {
	own := []string{"--config=/dev/null", "--log-format=json"}
	if s.Node != "" {
		own = append(own, "--node-name="+s.Node)
	}
	switch s.API {
	case API{}:
		return s.Args, nil
	case API{Kubeconfig: s.API.Kubeconfig}:
		return append(append(own, "--kubeconfig="+s.API.Kubeconfig), s.Args...), nil
	}
	host, port, err := net.SplitHostPort(s.API.Address)
	if err != nil {
		return nil, err
	}
	own = append(own, "--kubernetes-service-host="+host, "--kubernetes-service-port="+port,
		"--service-token-file="+filepath.Join(s.API.Tokens, s.account(), product.TokenFile), "--service-cert-file="+s.API.Cert)
	return append(own, s.Args...), nil
}

// account returns the name of the daemon, which is the same for the test build.
func (s Spec) account() string { return strings.TrimSuffix(filepath.Base(s.Program), testBuild) }

// TestBuild is clientmountd with failpoints. It also accepts the file system types that
// the fake mount helpers really mount.
const (
	TestBuild = "clientmountd" + testBuild
	testBuild = "-failpoints"
)

// Binary returns the path of a program: from the environment variable of its name
// (NNF_DM for nnf-dm), else next to this program, else in the bin directory of the
// repository.
func Binary(name string) (string, error) {
	variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	if path := os.Getenv(variable); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
		return path, nil
	}
	if path := beside(name); path != "" {
		return path, nil
	}
	root, err := Repository()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", name)
	if !exists(path) {
		return "", fmt.Errorf("bin/%s does not exist: run make build build-test, or set %s to the path", name, variable)
	}
	return path, nil
}

// beside returns the path of a file in the directory of this program, where the demo
// and the benchmark find their programs, or "" if it does not exist.
func beside(name string) string {
	self, err := os.Executable()
	if path := filepath.Join(filepath.Dir(self), name); err == nil && exists(path) {
		return path
	}
	return ""
}

// Repository returns the root directory of the module, which contains the working
// directory.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/compute-daemons/compute-daemons\n") {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the working directory is not inside the repository")
}

// Process is a running program. Its log is its standard output and standard error.
type Process struct {
	PID     int
	Started time.Time // immediately before the exec

	name    string
	lab     *Lab
	cmd     *exec.Cmd
	stdin   io.Closer
	lines   feed[LogLine]
	notices *notices
	done    chan struct{}
	err     error

	dropped []string    // problems in lines that ForgetLog has dropped
	json    bool        // all lines of the log must be JSON, unless the start fails
	checked atomic.Bool // the caller has the exit code, or has killed the process
	starved atomic.Bool // it may end because it cannot create a thread
}

// LogLine is a line of output. Fields is nil if the line is not JSON.
type LogLine struct {
	Time   time.Time // when it was read
	Text   string
	Fields map[string]any
}

// Has reports whether the line contains all texts.
func (l LogLine) Has(texts ...string) bool { return HasAll(l.Text, texts...) }

// HasAll reports whether text contains all parts.
func HasAll(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

// Start starts a program. At the end of the test it stops the process with SIGTERM, if
// it still runs. The test fails if the exit code is not 0 (unless the test has read
// it), if the log has a panic, or if processes are left in its process group. If the
// test has failed, the log is printed.
func Start(tb TB, l *Lab, s Spec) *Process {
	tb.Helper()
	p, err := l.start(s)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		tb.Helper()
		if tb.Failed() {
			p.Kill9()
		}
		for _, text := range p.finish() {
			tb.Error(p.name + ": " + text)
		}
		if tb.Failed() {
			p.dump(tb)
		}
	})
	return p
}

// start is Start without a test.
func (l *Lab) start(s Spec) (*Process, error) {
	if s.Program == "" {
		s.Program = "clientmountd"
	}
	program := s.Program
	if !strings.Contains(program, "/") {
		var err error
		if program, err = Binary(program); err != nil {
			return nil, err
		}
	}
	args, err := s.flags()
	if err != nil {
		return nil, err
	}
	line := append(append(s.Wrap[:len(s.Wrap):len(s.Wrap)], program), args...)
	p := &Process{name: s.account(), lab: l, done: make(chan struct{}), json: s.API != API{}}
	if s.Listen != nil {
		// LISTEN_PID must be the PID of the process (sd_listen_fds(3)), so a shell sets
		// it.
		line = append([]string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, line...)
	}
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Env = []string{"PATH=" + l.Path(), "HOME=/root", "LANG=C.UTF-8"}
	if s.Listen != nil {
		p.cmd.Env, p.cmd.ExtraFiles = append(p.cmd.Env, "LISTEN_FDS=1"), []*os.File{s.Listen}
	}
	if s.Watchdog > 0 {
		p.cmd.Env = append(p.cmd.Env, "WATCHDOG_USEC="+strconv.FormatInt(s.Watchdog.Microseconds(), 10))
	}
	if s.Stdin {
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if !s.NoNotify {
		socket := filepath.Join(l.Dir, fmt.Sprintf("notify-%d", time.Now().UnixNano()))
		if p.notices, err = listenNotices(socket); err != nil {
			return nil, err
		}
		p.cmd.Env = append(p.cmd.Env, "NOTIFY_SOCKET="+socket)
	}
	p.cmd.Env = append(p.cmd.Env, s.Env...)
	if err := p.run(); err != nil {
		p.notices.close()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	l.onClose(func() error { p.Kill9(); return nil })
	return p, nil
}

// run starts the command and reads its output.
func (p *Process) run() error {
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	// Not StdoutPipe: a child that keeps the pipe open must not delay Wait.
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	p.cmd.Stderr, p.cmd.Stdout = write, write
	p.Started = time.Now()
	err = p.lab.startCommand(p.cmd)
	write.Close()
	if err != nil {
		read.Close()
		return err
	}
	p.PID = p.cmd.Process.Pid
	go p.readLog(read)
	go func() {
		p.err = p.cmd.Wait()
		p.lab.alive(p.PID, false)
		p.notices.close() // first, so that all notices are there when Done is closed
		close(p.done)
	}()
	return nil
}

func (p *Process) readLog(pipe *os.File) {
	defer p.lines.end()
	defer pipe.Close()
	lines := bufio.NewReaderSize(pipe, 64<<10)
	for {
		text, err := lines.ReadString('\n')
		if len(text) > 0 {
			line := LogLine{Time: time.Now(), Text: text}
			_ = json.Unmarshal([]byte(text), &line.Fields) // plain text has no fields
			p.lines.add(line)
		}
		if err != nil {
			return
		}
	}
}

// crash matches output of the Go runtime, and of the daemons after a panic. It does not match the stack of
// another program in a message, which mentions panic.go.
var crash = regexp.MustCompile(`(?i)\bpanic(?:[^.]|$)|^fatal error: |^goroutine \d+ \[|WARNING: DATA RACE`)

// noThread matches how the Go runtime ends a program that needs a thread and cannot create one.
var noThread = regexp.MustCompile(`^runtime: failed to create new OS thread`)

// Starve permits that the Go runtime ends the program because it cannot create a thread.
func (p *Process) Starve() { p.starved.Store(true) }

// Starved reports whether the Go runtime has ended the program for that reason.
func (p *Process) Starved() bool {
	return slices.ContainsFunc(p.Log(), func(l LogLine) bool { return noThread.MatchString(l.Text) })
}

// endsWithin limits the exit of a program after SIGTERM, on a busy machine.
const endsWithin = time.Minute

// finish stops the process if it still runs, and returns the problems.
func (p *Process) finish() (wrong []string) {
	ctx, cancel := context.WithTimeout(context.Background(), endsWithin)
	defer cancel()
	if !p.checked.Load() {
		_ = p.Term()
		// Before it is ready it may not handle signals yet.
		early := p.notices != nil && !slices.ContainsFunc(p.Notices(), func(n Notice) bool { _, ready := n.Value("READY"); return ready })
		if code, err := p.Wait(ctx); err != nil || code != 0 && !(early && code == 128+int(unix.SIGTERM)) {
			wrong = append(wrong, fmt.Sprintf("exit code %d, %v", code, err))
		}
		if len(wrong) == 0 && unix.Kill(-p.PID, 0) == nil {
			wrong = append(wrong, "processes are left in its process group")
		}
	}
	p.Kill9()
	wrong = append(wrong, p.dropped...)
	for _, line := range p.Log() {
		if p.starved.Load() && noThread.MatchString(line.Text) {
			break
		}
		if crash.MatchString(line.Text) || p.json && line.Fields == nil && p.cmd.ProcessState.ExitCode() == 0 {
			wrong = append(wrong, "in the log: "+strings.TrimSpace(line.Text))
			break
		}
	}
	return wrong
}

// ForgetLog frees the memory of the log so far. The test still fails if it has a panic.
func (p *Process) ForgetLog() {
	p.lines.change(func() {
		for _, line := range p.lines.items {
			if crash.MatchString(line.Text) && len(p.dropped) == 0 {
				p.dropped = append(p.dropped, "in the log: "+strings.TrimSpace(line.Text))
			}
		}
		p.lines.items = nil
	})
}

// Goroutines ends a Go program with SIGQUIT, which prints the stack of each goroutine, and returns
// their number without those of the runtime.
func (p *Process) Goroutines(ctx context.Context) (n int, err error) {
	p.ForgetLog()
	if err := p.Signal(unix.SIGQUIT); err != nil {
		return 0, err
	}
	if code, err := p.Wait(ctx); err != nil || code != 2 {
		return 0, fmt.Errorf("%s exited with code %d after SIGQUIT: %w", p.name, code, err)
	}
	_, _ = p.lines.wait(ctx, func(LogLine) bool { return false }) // until the end of the log
	for _, line := range p.Log() {
		if stack.MatchString(line.Text) {
			n++
		}
	}
	p.lines.clear()
	if n == 0 {
		return 0, fmt.Errorf("%s printed no stacks", p.name)
	}
	return n, nil
}

// stack matches the first line of the stack of a goroutine.
var stack = regexp.MustCompile(`^goroutine [1-9]\d* .*\[`)

// crashed returns the first line of a crash of the Go runtime as an error.
func (p *Process) crashed() error {
	if p == nil {
		return nil
	}
	for _, line := range p.Log() {
		if strings.HasPrefix(line.Text, "panic: ") || strings.HasPrefix(line.Text, "fatal error: ") {
			return fmt.Errorf("%s: %s", p.name, strings.TrimSpace(line.Text))
		}
	}
	return nil
}

// dump writes the end of the log to the test log.
func (p *Process) dump(tb TB) {
	tb.Helper()
	log := p.Log()
	for _, line := range log[max(0, len(log)-200):] {
		tb.Log(p.name + ": " + strings.TrimSpace(line.Text))
	}
	for _, n := range p.Notices() {
		tb.Log(p.name + " notifies: " + n.Time.Format("05.000 ") + n.Text)
	}
}

// Log returns the output of the program so far.
func (p *Process) Log() []LogLine { return p.lines.all() }

// WaitLog waits for a line that matches, and returns the first one, including past
// lines.
func (p *Process) WaitLog(ctx context.Context, match func(LogLine) bool) (LogLine, error) {
	return p.lines.wait(ctx, match)
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Term sends SIGTERM.
func (p *Process) Term() error { return p.Signal(unix.SIGTERM) }

// Hup sends SIGHUP, which makes a daemon reload.
func (p *Process) Hup() error { return p.Signal(unix.SIGHUP) }

// CloseStdin closes the pipe of Spec.Stdin.
func (p *Process) CloseStdin() error { return p.stdin.Close() }

// Kill9 kills the process, not its children, and waits for its exit.
func (p *Process) Kill9() {
	p.checked.Store(true)
	_ = p.Signal(unix.SIGKILL)
	<-p.done
}

// Done returns a channel that is closed when the process has exited.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process and returns its exit code: 128 plus the number of the
// signal if it was killed.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return -1, fmt.Errorf("%s is still running: %w", p.name, ctx.Err())
	}
	p.checked.Store(true)
	if exit := (*exec.ExitError)(nil); p.err != nil && !errors.As(p.err, &exit) {
		return -1, p.err
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// Stop stops the process with SIGTERM. An exit code other than 0 is an error.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Term(); err != nil {
		return err
	}
	code, err := p.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s exited with code %d", p.name, code)
	}
	return err
}

// starts runs functions on one thread that lives as long as the process. The kernel
// sends a parent-death signal when the thread that started the child exits, so all
// children start from this thread.
var starts = func() chan func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
}()

// startCommand starts a command and marks its process as expected.
func (l *Lab) startCommand(cmd *exec.Cmd) error {
	done := make(chan error)
	starts <- func() { done <- cmd.Start() }
	if err := <-done; err != nil {
		return err
	}
	l.alive(cmd.Process.Pid, true)
	return nil
}

// Run runs a command and waits for it. Its process is expected, and is killed with this
// process.
func (l *Lab) Run(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	if err := l.startCommand(cmd); err != nil {
		return err
	}
	defer l.alive(cmd.Process.Pid, false)
	return cmd.Wait()
}
