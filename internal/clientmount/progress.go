package clientmount

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// progress publishes, once, that an operation is under way when it takes
// long: {state, ready:false}. The contract publishes this always; a quick
// operation is over before anybody could read it, so it saves the write.
type progress struct {
	lock   chan struct{} // holds one value while the write or end is at work
	timer  *time.Timer
	over   bool
	state  atomic.Int32
	cancel context.CancelFunc // of the write
}

// What became of the write.
const (
	progressWaits = iota
	progressSent
	progressCancelled
)

// end stops publishing and waits for a write that is under way, so that the
// outcome is written after it. One that still waits for its turn is not sent. A
// nil progress has nothing to end.
func (p *progress) end() {
	if p == nil {
		return
	}
	p.timer.Stop()
	if p.state.CompareAndSwap(progressWaits, progressCancelled) {
		p.cancel()
	}
	p.lock <- struct{}{}
	p.over = true
	<-p.lock
}

func (a *attempt) startProgress(s dws.State) {
	status := a.baseStatus(s)
	if sameStatus(a.w.status, status) || a.progressAfter <= 0 {
		return
	}
	p := &progress{lock: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(a.ctx)
	p.cancel = cancel
	ctx = kube.WithSent(ctx, func() {
		if !p.state.CompareAndSwap(progressWaits, progressSent) {
			cancel()
		}
	})
	a.progress = p
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	p.timer = time.AfterFunc(a.progressAfter, func() {
		p.lock <- struct{}{}
		defer func() { <-p.lock }()
		if !p.over {
			// A failed write is no loss: the outcome follows.
			_ = a.publishWith(ctx, status)
		}
	})
}

// publish writes an intermediate status.
func (a *attempt) publish(status *dws.ClientMountStatus) error { return a.publishWith(a.ctx, status) }

func (a *attempt) publishWith(ctx context.Context, status *dws.ClientMountStatus) error {
	if sameStatus(a.w.status, status) {
		return nil
	}
	if err := a.reconciler.remote.patchStatus(ctx, a.cm, status); err != nil {
		return err
	}
	copied := *status
	copied.Mounts = append([]dws.MountStatus(nil), status.Mounts...)
	a.w.status = &copied
	return nil
}
