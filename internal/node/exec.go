package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultGrace   = 500 * time.Millisecond
	defaultCapture = 64 << 10
	// afterKill is how long we wait for a group that got SIGKILL. Together with
	// the default grace it keeps Run within a second after the limit.
	afterKill = 400 * time.Millisecond
	// pipeWait is how long we read on after the program ended by itself, when a
	// process that it left behind still holds its output.
	pipeWait = 250 * time.Millisecond
)

// Exec runs commands on this machine. Each one gets a process group of its own
// and our environment without what systemd meant for us.
// The zero value is ready for use.
//
// When the limit is reached or the context ends, the whole group gets SIGTERM and,
// after Grace, SIGKILL. A program that survives even that (state D: stuck in the
// kernel) is left behind: the error names its pid, and it is reaped whenever it
// ends. Processes that a program leaves behind when it ends by itself live on,
// but their output is no longer read.
type Exec struct {
	Grace   time.Duration // from SIGTERM to SIGKILL; 0 means 500 ms
	Capture int           // bytes kept of each stream; 0 means 64 KiB
	Dir     string        // working directory; empty means /
	Log     *slog.Logger  // gets the end of programs that were left behind; may be nil
}

// Run runs c and waits for its end. Every failure is a *CommandError. It returns
// at most Grace plus 400 ms after the limit or the end of ctx.
func (e *Exec) Run(ctx context.Context, c Command) (Result, error) {
	begin := time.Now()
	failed := &CommandError{Line: c.String()}
	if ctx.Err() != nil {
		failed.Err, failed.TimedOut = fmt.Errorf("not started: %w", context.Cause(ctx)), true
		return Result{}, failed
	}
	p, err := e.start(c)
	if err != nil {
		failed.Err = err
		return Result{Duration: time.Since(begin)}, failed
	}
	why := p.await(ctx, c.Timeout)
	if why != nil {
		p.terminate(e.grace())
	} else {
		p.settle(pipeWait)
	}
	res := Result{Duration: time.Since(begin)}
	for _, o := range []struct {
		s  *stream
		to *string
	}{{p.out, &res.Stdout}, {p.err, &res.Stderr}, {p.report, &res.Report}} {
		if o.s == nil {
			continue
		}
		o.s.stop()
		*o.to = o.s.String()
		res.Truncated = res.Truncated || o.s.leftOut() > 0
	}
	failed.Err = p.reap(e.Log, failed.Line)
	if why != nil {
		if errors.Is(failed.Err, errSurvived) {
			failed.PID = p.pid
		}
		if failed.Err == nil {
			failed.Err = ExitStatus(0)
		}
		failed.Err, failed.TimedOut = fmt.Errorf("%w (%w)", failed.Err, why), true
	}
	if failed.Err == nil {
		return res, nil
	}
	failed.Stdout, failed.Stderr = res.Stdout, res.Stderr
	return res, failed
}

func (e *Exec) grace() time.Duration {
	if e.Grace > 0 {
		return e.Grace
	}
	return defaultGrace
}

// start finds the program and starts it.
func (e *Exec) start(c Command) (_ *process, err error) {
	argv := c.Argv
	if c.Shell != "" {
		argv = []string{"bash", "-c", c.Shell}
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("no program given")
	}
	program := c.Program
	if program == "" {
		if program, err = exec.LookPath(argv[0]); err != nil {
			return nil, err
		}
	}
	limit := defaultCapture
	if e.Capture > 0 {
		limit = e.Capture
	}
	if c.Capture > 0 {
		limit = c.Capture
	}
	in, err := input(c.Input)
	if err != nil {
		return nil, err
	}
	files := []*os.File{in}
	p := &process{exited: make(chan struct{})}
	defer func() {
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			p.stopReading()
		}
	}()
	streams := []**stream{&p.out, &p.err}
	if c.Report != "" {
		c.Env = append(slices.Clone(c.Env), fmt.Sprintf("%s=%d", c.Report, len(files)+len(streams)))
		streams = append(streams, &p.report)
	}
	for _, s := range streams {
		var w *os.File
		if *s, w, err = newStream(limit); err != nil {
			return nil, err
		}
		files = append(files, w)
	}
	dir := e.Dir
	if dir == "" {
		dir = "/"
	}
	p.proc, err = os.StartProcess(program, argv, &os.ProcAttr{
		Dir:   dir,
		Env:   environment(os.Environ(), c),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, err
	}
	p.pid = p.proc.Pid
	go func(pid int, exited chan struct{}) {
		defer close(exited)
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}(p.pid, p.exited)
	return p, nil
}

// input returns a file that holds data, at its start. It is in memory, so that no
// program can make us wait by not reading it.
func input(data []byte) (*os.File, error) {
	if len(data) == 0 {
		return os.Open(os.DevNull)
	}
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make the input of a program: %w", err)
	}
	f := os.NewFile(uintptr(fd), "input")
	if _, err = f.Write(data); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot make the input of a program: %w", err)
	}
	return f, nil
}

// environment returns ours without the variables that systemd addressed to us (a
// child that speaks to our notify socket would be taken for us), with the
// command's own put over it. Programs that we call by argv speak English, since
// some of their messages are looked at; hooks keep the site's language.
func environment(ours []string, c Command) []string {
	set := func(key string) func(string) bool {
		return func(kv string) bool { return strings.HasPrefix(kv, key+"=") }
	}
	over := slices.Clone(c.Env)
	if c.Shell == "" && !slices.ContainsFunc(over, set("LC_ALL")) {
		over = append(over, "LC_ALL=C")
	}
	env := make([]string, 0, len(ours)+len(over))
	for _, kv := range ours {
		key, _, _ := strings.Cut(kv, "=")
		private := key == "NOTIFY_SOCKET" || strings.HasPrefix(key, "WATCHDOG_") || strings.HasPrefix(key, "LISTEN_")
		if !private && !slices.ContainsFunc(over, set(key)) {
			env = append(env, kv)
		}
	}
	return append(env, over...)
}
