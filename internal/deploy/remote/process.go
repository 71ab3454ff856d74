package remote

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// Start starts ssh with these arguments. stdin is its standard input, which must be closed. wait
// returns the exit code when ssh has exited and all its output is written, or the error if
// there is no exit code. If ctx is done, ssh is stopped.
type Start func(ctx context.Context, program string, args []string, stdout, stderr io.Writer) (stdin io.WriteCloser, wait func() (code int, err error), err error)

// killDelay is how long ssh may take to exit after a signal.
const killDelay = 2 * time.Second

// startProcess is the Start for a process.
func startProcess(ctx context.Context, program string, args []string, stdout, stderr io.Writer) (io.WriteCloser, func() (int, error), error) {
	cmd := exec.CommandContext(ctx, program, args...)
	// ssh gets its own process group, so that Ctrl-C signals only nnf-deploy, which decides
	// which ssh to stop.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	cmd.Stdout, cmd.Stderr = stdout, stderr
	feed, err := cmd.StdinPipe() // not cmd.Stdin: Wait would wait for stdin, which may wait for the caller
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, err
	}
	return feed, func() (int, error) {
		err := cmd.Wait()
		exit := (*exec.ExitError)(nil)
		switch {
		case err == nil, errors.Is(err, exec.ErrWaitDelay): // a shared connection may keep our pipes
			return 0, nil
		case errors.As(err, &exit) && exit.ExitCode() >= 0:
			return exit.ExitCode(), nil
		}
		return -1, err
	}, nil
}

// noProgram returns the error for an ssh that could not be started.
func noProgram(node string, err error) error {
	e := &Error{Node: node, Kind: Program, Text: err.Error(), Hint: "check --ssh and PATH"}
	switch {
	case errors.Is(err, syscall.EMFILE):
		e.Text, e.Hint = "the limit of open files of nnf-deploy is reached", "lower --parallel, or raise the limit (ulimit -n)"
	case errors.Is(err, syscall.ENFILE):
		e.Text, e.Hint = "the limit of open files of this host is reached", "lower --parallel, or raise fs.file-max with sysctl"
	case errors.Is(err, syscall.EAGAIN):
		e.Text, e.Hint = "the limit of processes is reached", "lower --parallel, or raise the limit (ulimit -u, or TasksMax= of the unit or session)"
	}
	return e
}
