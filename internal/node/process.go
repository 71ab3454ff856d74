package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errSurvived is the cause when a program did not end on SIGKILL.
var errSurvived = errors.New("still running after SIGKILL")

// process is a started command. Its exit is seen before it is reaped: as long as
// the leader is a zombie, the number of its group cannot be given to strangers,
// and a signal to the group is safe.
type process struct {
	proc     *os.Process
	pid      int
	out, err *stream
	report   *stream       // nil without Command.Report
	exited   chan struct{} // closed when the leader has ended; it is not yet reaped
}

// stopReading ends the readers of a process that was not started.
func (p *process) stopReading() {
	for _, s := range []*stream{p.out, p.err, p.report} {
		if s != nil {
			s.stop()
		}
	}
}

// await returns nil when the leader has ended, or why it may not run any longer.
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
	case <-p.exited: // it was just in time
		return nil
	default:
		return why
	}
}

// settle waits until the leader has ended and nobody holds its output, at most for d.
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

// terminate ends the whole group. The signals find it, since the leader is alive
// or a zombie.
func (p *process) terminate(grace time.Duration) {
	unix.Kill(-p.pid, unix.SIGTERM)
	p.settle(grace)
	unix.Kill(-p.pid, unix.SIGKILL)
	p.settle(afterKill)
}

// reap returns how the leader ended: nil, an ExitStatus, a signal, or errSurvived
// when it has not. Then it is reaped in the background.
func (p *process) reap(log *slog.Logger, line string) error {
	select {
	case <-p.exited:
	default:
		go func() {
			begin := time.Now()
			<-p.exited
			state, err := p.proc.Wait()
			if log != nil {
				log.Warn("a command that had been left behind has ended", "command", line, "pid", p.pid,
					"state", state, "error", err, "after", time.Since(begin))
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
