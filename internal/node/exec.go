package node

import (
	"cmp"
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
	// termGrace is the time from SIGTERM to SIGKILL.
	termGrace = 500 * time.Millisecond
	// defaultCapture is the default of Command.Capture, in bytes.
	defaultCapture = 64 << 10
	// afterKill is how long Run waits for a process group after SIGKILL. Together with
	// termGrace it makes Run return within a second after the limit.
	afterKill = 400 * time.Millisecond
	// pipeWait is how long Run continues to read after the program has exited, if another
	// process still has its output open.
	pipeWait = 250 * time.Millisecond
)

// Exec runs commands on this machine. Each command gets a new process group, our
// environment without the variables that systemd set for us, and / as its working
// directory. The zero value is ready for use.
//
// When the time limit is reached or the context ends, the whole group gets SIGTERM and,
// after 500 ms, SIGKILL. Run does not wait for a program that survives SIGKILL (state D,
// uninterruptible sleep): the error has its pid, and the program is reaped when it exits.
// Child processes of a program that has exited keep running, but their output is no
// longer read.
type Exec struct {
	Log *slog.Logger // reports the exit of programs that survived SIGKILL; may be nil
}

// Run runs c and waits until it exits. Every failure is a *CommandError. It returns at
// most 900 ms after the limit or the end of ctx.
func (e *Exec) Run(ctx context.Context, c Command) (Result, error) {
	failed := &CommandError{Line: c.String()}
	if ctx.Err() != nil {
		failed.Err, failed.TimedOut = fmt.Errorf("not started: %w", context.Cause(ctx)), true
		return Result{}, failed
	}
	p, err := start(c)
	if err != nil {
		failed.Err = err
		return Result{}, failed
	}
	why := p.await(ctx, c.Timeout)
	if why != nil {
		p.terminate(termGrace)
	} else {
		p.settle(pipeWait)
	}
	var res Result
	for _, o := range []struct {
		s  *stream
		to *string
	}{{p.out, &res.Stdout}, {p.err, &res.Stderr}, {p.report, &res.Report}} {
		if o.s == nil {
			continue
		}
		o.s.stop()
		*o.to = o.s.String()
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

// start finds the program and starts it.
func start(c Command) (_ *process, err error) {
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
	limit := cmp.Or(c.Capture, defaultCapture)
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
	p.proc, err = os.StartProcess(program, argv, &os.ProcAttr{
		Dir:   "/",
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

// input returns a file in memory with data, at offset 0. Unlike a pipe it cannot block us
// if the program does not read it.
func input(data []byte) (*os.File, error) {
	if len(data) == 0 {
		return os.Open(os.DevNull)
	}
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot create the input of a program: %w", err)
	}
	f := os.NewFile(uintptr(fd), "input")
	if _, err = f.Write(data); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot create the input of a program: %w", err)
	}
	return f, nil
}

// environment returns our environment without the variables that systemd set for us (a
// child could use our notify socket in our name), and with those of the command. Programs
// called by argv get LC_ALL=C, because we compare some of their messages; hooks keep the
// site's language.
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

// errSurvived is the cause if a program did not exit after SIGKILL.
var errSurvived = errors.New("still running after SIGKILL")

// process is a started command. Its exit is detected before it is reaped: while the
// leader is a zombie, the kernel does not reuse the ID of its group, so a signal to the
// group is safe.
type process struct {
	proc     *os.Process
	pid      int
	out, err *stream
	report   *stream       // nil without Command.Report
	exited   chan struct{} // closed when the leader has exited; it is not reaped yet
}

// stopReading stops the readers of a process that was not started.
func (p *process) stopReading() {
	for _, s := range []*stream{p.out, p.err, p.report} {
		if s != nil {
			s.stop()
		}
	}
}

// await returns nil when the leader has exited, or the reason to terminate it.
func (p *process) await(ctx context.Context, limit time.Duration) error {
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	var why error
	select {
	case <-p.exited:
	case <-expired:
		why = fmt.Errorf("time limit of %v reached", limit)
	case <-ctx.Done():
		why = context.Cause(ctx)
	}
	select {
	case <-p.exited: // it has exited at the same moment
		return nil
	default:
		return why
	}
}

// settle waits until the leader has exited and no process has its output open, at most
// for d.
func (p *process) settle(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	ends := []<-chan struct{}{p.exited, p.out.done, p.err.done}
	if p.report != nil {
		ends = append(ends, p.report.done)
	}
	for _, c := range ends {
		select {
		case <-c:
		case <-t.C:
			return
		}
	}
}

// terminate kills the whole group. The group exists, because the leader is running or a
// zombie.
func (p *process) terminate(grace time.Duration) {
	unix.Kill(-p.pid, unix.SIGTERM)
	p.settle(grace)
	unix.Kill(-p.pid, unix.SIGKILL)
	p.settle(afterKill)
}

// reap returns how the leader exited: nil, an ExitStatus or a signal. If it has not
// exited, reap returns errSurvived and reaps it in the background.
func (p *process) reap(log *slog.Logger, line string) error {
	select {
	case <-p.exited:
	default:
		go func() {
			start := time.Now()
			<-p.exited
			state, err := p.proc.Wait()
			if log != nil {
				log.Warn("a command that did not exit after SIGKILL has now exited", "command", line, "pid", p.pid,
					"state", state, "error", err, "after", time.Since(start))
			}
		}()
		return fmt.Errorf("%w as pid %d", errSurvived, p.pid)
	}
	state, err := p.proc.Wait()
	if err != nil {
		return err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Exited() && status.ExitStatus() != 0 {
		return ExitStatus(status.ExitStatus())
	}
	if !state.Success() {
		return errors.New(state.String()) // signal: killed
	}
	return nil
}

// capture keeps the start and the end of what is written to it, half of limit each: the
// cause of a failure is usually at one of them, and memory is bounded.
type capture struct {
	limit int
	head  []byte
	tail  []byte // a ring buffer when it is full
	next  int    // next write position in the ring buffer
	total int64
}

func (c *capture) Write(p []byte) (int, error) {
	written := len(p)
	c.total += int64(written)
	if free := c.limit/2 - len(c.head); free > 0 {
		k := min(free, len(p))
		c.head, p = append(c.head, p[:k]...), p[k:]
	}
	size := c.limit - c.limit/2
	if len(p) > size {
		p = p[len(p)-size:]
	}
	if free := size - len(c.tail); free > 0 {
		k := min(free, len(p))
		c.tail, p = append(c.tail, p[:k]...), p[k:]
	}
	for len(p) > 0 {
		k := copy(c.tail[c.next:], p)
		c.next, p = (c.next+k)%size, p[k:]
	}
	return written, nil
}

// leftOut returns the number of bytes dropped from the middle.
func (c *capture) leftOut() int64 { return c.total - int64(len(c.head)+len(c.tail)) }

// String returns the kept bytes as valid UTF-8.
func (c *capture) String() string {
	var b strings.Builder
	b.Write(c.head)
	if n := c.leftOut(); n > 0 {
		fmt.Fprintf(&b, "\n… %d bytes left out …\n", n)
	}
	b.Write(c.tail[c.next:])
	b.Write(c.tail[:c.next])
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

// stream reads one output of a command into a capture.
type stream struct {
	capture
	r    *os.File
	done chan struct{} // closed when the reader has finished
}

// newStream starts a reader; w is the end of the pipe for the command.
func newStream(limit int) (s *stream, w *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	s = &stream{capture: capture{limit: limit}, r: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := make([]byte, 4<<10) // small, because the daemon is idle most of the time
		for {
			n, err := r.Read(buf)
			s.Write(buf[:n])
			if err != nil {
				return // all writers have closed the pipe, or stop was called
			}
		}
	}()
	return s, w, nil
}

// stop stops the reader, even if another process still has the other end open. After that
// the capture can be read.
func (s *stream) stop() {
	s.r.Close()
	<-s.done
}
