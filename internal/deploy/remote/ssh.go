package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// SSH is the Shell by the administrator's ssh.
type SSH struct {
	Program string   // "": ssh
	Options []string // words for it; one that does not begin with "-" is an option of ssh_config(5)
	User    string   // "": as ssh_config says
	Sudo    bool     // become root by sudo
	Connect time.Duration
}

// grace is how long an ssh may take to end when it is told to.
const grace = 2 * time.Second

// arguments are those for ssh. The first mention of an option counts for it, so
// those of the administrator stand before ours.
func (s *SSH) arguments(node string, script Script) []string {
	var args []string
	for _, o := range s.Options {
		if !strings.HasPrefix(o, "-") {
			args = append(args, "-o")
		}
		args = append(args, o)
	}
	connect := s.Connect
	if connect <= 0 {
		connect = 10 * time.Second
	}
	args = append(args, "-T", "-x",
		"-o", "BatchMode=yes", // nobody answers thirty questions at once
		"-o", fmt.Sprintf("ConnectTimeout=%d", int(connect.Seconds()+0.999)),
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", // a node that dies meanwhile
		"-o", "ClearAllForwardings=yes", // what a person's login forwards is of no use here
	)
	if s.User != "" {
		args = append(args, "-l", s.User)
	}
	return append(args, "--", node, script.command(s.Sudo))
}

// Run implements Shell.
func (s *SSH) Run(ctx context.Context, node string, script Script, stdin io.Reader, stdout io.Writer) error {
	program := s.Program
	if program == "" {
		program = "ssh"
	}
	cmd := exec.CommandContext(ctx, program, s.arguments(node, script)...)
	// A group of its own: Ctrl-C is for us, who decide which ssh ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	var heard atomic.Bool
	stderr := &tail{limit: 8 << 10}
	cmd.Stdout, cmd.Stderr = &listener{stdout, &heard}, stderr
	in, err := cmd.StdinPipe() // not cmd.Stdin: Wait would wait for a reader that waits for us
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return &Error{Node: node, Kind: Program, Text: err.Error(), Hint: "see --ssh and PATH"}
	}
	go func() {
		defer in.Close()
		if _, err := io.WriteString(in, script.Text); err == nil && stdin != nil {
			_, _ = io.Copy(in, stdin) // if it breaks, so does the script, which says why
		}
	}()
	err = cmd.Wait()
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // a shared connection may keep our pipes
		return nil
	case ctx.Err() != nil:
		return &Error{Node: node, Kind: Ended, Text: context.Cause(ctx).Error()}
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return failure(node, exit.ExitCode(), stderr.String(), heard.Load())
	}
	return &Error{Node: node, Kind: Lost, Text: err.Error(), Hint: "run it again: it goes on where it stopped"}
}

// listener notices that something was said.
type listener struct {
	io.Writer
	heard *atomic.Bool
}

func (l *listener) Write(p []byte) (int, error) {
	l.heard.Store(true)
	return l.Writer.Write(p)
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	data  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.data.Write(p)
	if over := t.data.Len() - t.limit; over > 0 {
		t.data.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.data.String() }
