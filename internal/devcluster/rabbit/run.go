package rabbit

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/copytool"
)

// execution is a running command of a movement.
type execution struct {
	kill      context.CancelFunc
	cancelled atomic.Bool
	done      chan struct{} // closed after the command has exited and the status is written
}

func (e *execution) running() bool {
	if e == nil {
		return false
	}
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

// cancel kills the command. The movement gets the status Cancelled.
func (e *execution) cancel() {
	e.cancelled.Store(true)
	e.kill()
}

// start starts the command of the plan. It calls free when the command has exited.
// After ctx is done it writes no status, because the next run must find the movement
// Running.
func (w *worker) start(ctx context.Context, m *movement, p *plan, free func()) *execution {
	commandCtx, kill := context.WithCancel(ctx)
	e := &execution{kill: kill, done: make(chan struct{})}
	w.record.write(w, "copy", p.command)
	environment := append(os.Environ(), "PATH="+filepath.Join(w.Dir, "bin")+":"+os.Getenv("PATH"))
	environment = append(environment, p.environment...)
	w.busy.Go(func() {
		defer close(e.done)
		defer free()
		defer kill()
		defer os.Remove(p.hostfile)
		began := time.Now()
		out := &tail{}
		stop := w.reportProgress(commandCtx, p.interval, began, out)
		err := shell(commandCtx, p.command, environment, out)
		stop()
		if ctx.Err() != nil {
			return
		}
		w.finish(ctx, m, p, e, began, out, err)
	})
	return e
}

// reportProgress writes the progress once per interval until stop is called. It skips
// updates that cause a conflict.
func (w *worker) reportProgress(ctx context.Context, interval time.Duration, began time.Time, out *tail) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := w.statusOnce(ctx, func(status map[string]any) { out.progress().write(status, time.Since(began)) })
			if err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
				w.Log("%s/%s: progress: %v", w.ns, w.name, err)
			}
		}
	})
	return func() { cancel(); ended.Wait() }
}

// finish writes the final status. It retries while the server does not respond.
func (w *worker) finish(ctx context.Context, m *movement, p *plan, e *execution, began time.Time, out *tail, result error) {
	took, now := time.Since(began), time.Now()
	write := func(status map[string]any) {
		out.progress().write(status, took)
		status["endTime"], status["state"] = stamp(now), finished
		switch {
		case e.cancelled.Load():
			status["status"] = cancelled
		case result != nil:
			problem := &problem{"Internal", "Fatal", fmt.Sprintf("%v: %s", result, out)}
			problem.write(status)
			status["status"] = failed
		default:
			status["status"] = success
			if p.storeOut {
				status["message"] = out.String()
			}
		}
	}
	for {
		err := w.status(ctx, write)
		if err == nil || apierrors.IsNotFound(err) || ctx.Err() != nil {
			break
		}
		w.Log("%s/%s: %v; retrying", w.ns, w.name, err)
		select {
		case <-ctx.Done():
		case <-time.After(4 * poll):
		}
	}
	if p.logOut && result == nil {
		w.Log("%s/%s: output: %s", m.Namespace, m.Name, out)
	}
}

// shell runs a command line with bash in its own process group, which is killed when
// ctx is done and when this process exits.
func shell(ctx context.Context, command string, environment []string, out io.Writer) error {
	runtime.LockOSThread() // Pdeathsig watches the thread
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", command)
	cmd.Env, cmd.Stdout, cmd.Stderr = environment, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for processes that left the group and have our pipe
	return cmd.Run()
}

// environment returns the variables that pass faults to dcp.
func (f Faults) environment() []string {
	var out []string
	if f.Rate > 0 {
		out = append(out, fmt.Sprintf("%s=%d", copytool.RateVariable, f.Rate))
	}
	if f.Exit > 0 {
		out = append(out, fmt.Sprintf("%s=%d", copytool.ExitVariable, f.Exit))
	}
	return out
}
