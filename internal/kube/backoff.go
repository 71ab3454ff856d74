package kube

import (
	"context"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Delays between attempts: 0.8 s, doubled each time, each drawn from half to
// one and a half of that, never above 30 s. The first one is jittered too:
// when an API server restarts, all nodes lose their watch in the same moment.
// After the loss of the connection of a running watch they start with 3 s: most
// likely the server restarts, and in its first second it accepts connections
// but cannot check credentials yet (401) and has not filled its caches (429).
const (
	backoffFirst = 800 * time.Millisecond
	backoffLost  = 3 * time.Second
	backoffBase  = 24 * time.Second
	backoffCap   = 30 * time.Second
	// retryAfterCap bounds what a server may ask for.
	retryAfterCap = 60 * time.Second
	// healthyAfter is how long a watch must have lasted to start again from
	// the first delay; a flapping server keeps the long ones.
	healthyAfter = 30 * time.Second
)

type backoff struct{ first, base time.Duration }

func (b *backoff) reset() { b.base = 0 }

// next returns how long to wait after err.
func (b *backoff) next(err error) time.Duration {
	if b.base == 0 {
		b.base = b.first
	} else {
		b.base = min(2*b.base, backoffBase)
	}
	d := min(b.base/2+rand.N(b.base), backoffCap)
	if err != nil {
		if asked, ok := apierrors.SuggestsClientDelay(err); ok && asked > 0 {
			// Spread above what was asked, so that not all come at once.
			least := min(time.Duration(asked)*time.Second, retryAfterCap)
			d = max(d, least+rand.N(b.first))
		}
	}
	return d
}

// Pause waits for d, or returns early when ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
