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

// execution is a movement's command that runs.
type execution struct {
	kill      context.CancelFunc
	cancelled atomic.Bool
	done      chan struct{} // closed when it has ended and its end is written
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

// cancel kills the command for the user, so that it ends as Cancelled.
func (e *execution) cancel() {
	e.cancelled.Store(true)
	e.kill()
}

// start runs the plan's command and returns at once; free is called at its
// end. When ctx ends, nothing of the command's end is written: the next life
// has to find the movement Running.
func (w *worker) start(ctx context.Context, m *movement, p *plan, free func()) *execution {
	commandCtx, kill := context.WithCancel(ctx)
	e := &execution{kill: kill, done: make(chan struct{})}
	w.record.write(w, "copy", p.command)
	environment := append(os.Environ(), "PATH="+filepath.Join(w.Folder, "bin")+":"+os.Getenv("PATH"))
	environment = append(environment, p.environment...)
	w.busy.Go(func() {
		defer close(e.done)
		defer free()
		defer kill()
		defer os.Remove(p.hostfile)
		began := time.Now()
		out := &tail{}
		stop := w.beat(commandCtx, p.interval, began, out)
		err := shell(commandCtx, p.command, environment, out)
		stop()
		if ctx.Err() != nil {
			return
		}
		w.finish(ctx, m, p, e, began, out, err)
	})
	return e
}

// beat writes the progress once per interval until stop is called. An update
// that meets a conflict is left out.
func (w *worker) beat(ctx context.Context, interval time.Duration, began time.Time, out *tail) (stop func()) {
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

// finish writes the end, again and again while the server does not answer.
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
		w.Log("%s/%s: %v; trying again", w.ns, w.name, err)
		select {
		case <-ctx.Done():
		case <-time.After(4 * look):
		}
	}
	if p.logOut && result == nil {
		w.Log("%s/%s: output: %s", m.Namespace, m.Name, out)
	}
}

// shell runs a command line with bash, in a process group of its own, which is
// killed when ctx ends. It dies with this process.
func shell(ctx context.Context, command string, environment []string, out io.Writer) error {
	runtime.LockOSThread() // Pdeathsig watches the thread
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", command)
	cmd.Env, cmd.Stdout, cmd.Stderr = environment, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for whatever left the group with our pipe
	return cmd.Run()
}

// environment is how faults reach the stand-in for dcp.
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
