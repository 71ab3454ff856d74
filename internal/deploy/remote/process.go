package remote

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Start starts ssh with these arguments. stdin is its standard input, which must be closed. wait
// returns the exit code when ssh has exited and all its output is written, or the error if
// there is no exit code. If ctx is done, ssh is stopped.
type Start func(ctx context.Context, program string, args []string, stdout, stderr io.Writer) (stdin io.WriteCloser, wait func() (code int, err error), err error)

// killDelay is how long ssh may take to exit after a signal.
const killDelay = 2 * time.Second

// starting makes processes start one after another, as the kernel does anyway. So only one of them
// has both ends of its pipes open in this process, which limits the number of open files.
var starting sync.Mutex

// startProcess is the Start for a process. It needs three open files and, where the kernel has
// them, a pidfd.
func startProcess(ctx context.Context, program string, args []string, stdout, stderr io.Writer) (io.WriteCloser, func() (int, error), error) {
	cmd := exec.CommandContext(ctx, program, args...)
	// ssh gets its own process group, so that Ctrl-C signals only nnf-deploy, which decides
	// which ssh to stop.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	cmd.Stderr = stderr
	starting.Lock()
	defer starting.Unlock()
	out, end, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer end.Close()
	cmd.Stdout = end
	feed, err := cmd.StdinPipe() // not cmd.Stdin: Wait would wait for stdin, which may wait for the caller
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		out.Close()
		return nil, nil, err
	}
	read := make(chan struct{})
	var failed error
	go func() {
		defer close(read)
		defer out.Close()
		_, failed = io.Copy(stdout, out)
	}()
	return feed, func() (int, error) {
		awaitExit(ctx, cmd.Process.Pid, read)
		err := cmd.Wait()
		timer := time.NewTimer(killDelay)
		defer timer.Stop()
		select {
		case <-read:
		case <-timer.C: // a shared connection may keep our pipes
			out.Close()
			<-read
		}
		exit := (*exec.ExitError)(nil)
		switch {
		case failed != nil && !errors.Is(failed, os.ErrClosed):
			return -1, failed
		case err == nil, errors.Is(err, exec.ErrWaitDelay):
			return 0, nil
		case errors.As(err, &exit) && exit.ExitCode() >= 0:
			return exit.ExitCode(), nil
		}
		return -1, err
	}, nil
}

// awaitExit returns when a child process has exited or is about to exit: it has closed its output,
// or ctx is done. cmd.Wait needs a thread for as long as the process runs, awaitExit does not.
func awaitExit(ctx context.Context, pid int, closed <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-closed:
			return
		case <-ctx.Done():
			return
		case <-tick.C: // its output may be open in another process after it has exited
			var info unix.Siginfo
			err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
			if err != nil && !errors.Is(err, unix.EINTR) || info.Signo != 0 {
				return
			}
		}
	}
}

// isLimit reports whether err is that of a limit of this host: processes or open files.
func isLimit(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// OpenFiles returns the number of files that this process has open at most while it works on
// this number of nodes: three pipes and a pidfd for ssh, a file that is sent, and one for the second
// ssh of a slow login.
func OpenFiles(nodes int) int { return 64 + 6*nodes }

// MaxNodes returns the largest number of nodes, at least 1, for which the limit of open files of this
// process suffices, and the limit. The Go runtime has already raised the soft limit to the hard one.
func MaxNodes() (nodes, limit int) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return math.MaxInt, math.MaxInt
	}
	limit = int(min(l.Cur, math.MaxInt32))
	return max(1, (limit-OpenFiles(0))/(OpenFiles(1)-OpenFiles(0))), limit
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
