package clientmount

import (
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// progress publishes, once, that an operation is under way when it takes
// long: {state, ready:false}. The contract publishes this always; a quick
// operation is over before anybody could read it, so it saves the write.
type progress struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// end stops publishing and waits for a write that runs already, so that the
// outcome is written after it. A nil progress has nothing to end.
func (p *progress) end() {
	if p == nil {
		return
	}
	p.timer.Stop()
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
}

func (a *attempt) startProgress(s dws.State) {
	status := a.baseStatus(s)
	if sameStatus(a.w.status, status) || a.progressAfter <= 0 {
		return
	}
	p := &progress{}
	a.progress = p
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(a.progressAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.over {
			// A failed write is no loss: the outcome follows.
			_ = a.publish(status)
		}
	})
}

// publish writes an intermediate status.
func (a *attempt) publish(status *dws.ClientMountStatus) error {
	if sameStatus(a.w.status, status) {
		return nil
	}
	if err := a.reconciler.remote.patchStatus(a.ctx, a.cm, status); err != nil {
		return err
	}
	copied := *status
	copied.Mounts = append([]dws.MountStatus(nil), status.Mounts...)
	a.w.status = &copied
	return nil
}
