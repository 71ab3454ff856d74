package kube

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestTrackerTellsChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []State
		tr := tracker{on: func(s State) { told = append(told, s) }}
		refused := errors.New("connection refused")
		denied := apierrors.NewUnauthorized("no")
		begin := time.Now()
		for range 3 {
			time.Sleep(time.Minute)
			tr.down(refused)
		}
		tr.down(denied)
		tr.down(fmt.Errorf("again: %w", denied))
		time.Sleep(time.Minute)
		tr.up(false)
		tr.up(true)
		tr.up(true)
		tr.up(false)
		tr.down(refused)
		tr.up(false)
		want := []State{
			{Since: begin.Add(time.Minute), LastError: refused, Failures: 1},
			{Since: begin.Add(time.Minute), LastError: denied, Failures: 4},
			{Connected: true, Since: begin.Add(4 * time.Minute), Failures: 5},
			{Connected: true, Synced: true, Since: begin.Add(4 * time.Minute)},
			{Synced: true, Since: begin.Add(4 * time.Minute), LastError: refused, Failures: 1},
			{Connected: true, Synced: true, Since: begin.Add(4 * time.Minute), LastError: refused, Failures: 1},
		}
		if len(told) != len(want) {
			t.Fatalf("told %d times, want %d: %+v", len(told), len(want), told)
		}
		for i, w := range want {
			g := told[i]
			if w.LastError == nil {
				g.LastError = nil
			}
			if g.Connected != w.Connected || g.Synced != w.Synced || !g.Since.Equal(w.Since) || g.Failures != w.Failures || !errors.Is(g.LastError, w.LastError) {
				t.Errorf("%d: %+v, want %+v", i, g, w)
			}
		}
	})
}

func TestSameTrouble(t *testing.T) {
	reset := func(port int) error {
		return &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{Port: port}, Err: syscall.ECONNRESET}
	}
	cert := &Error{err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}
	name := &net.DNSError{Err: "no such host"}
	unserved := fmt.Errorf("%w: knows v1", ErrNotServed)
	denied, busy := apierrors.NewUnauthorized("no"), apierrors.NewTooManyRequests("later", 1)
	for _, tt := range []struct {
		a, b error
		want bool
	}{
		{reset(1), reset(2), true},
		{reset(1), syscall.ECONNREFUSED, true},
		{reset(1), cert, false},
		{reset(1), name, false},
		{name, cert, false},
		{denied, busy, false},
		{denied, &Error{text: "other words", err: denied}, true},
		{unserved, reset(1), false},
		{unserved, fmt.Errorf("%w: knows v1", ErrNotServed), true},
		{unserved, fmt.Errorf("%w: knows v2", ErrNotServed), false},
		{nil, denied, false},
	} {
		if got := SameTrouble(tt.a, tt.b); got != tt.want {
			t.Errorf("%v and %v: %v", tt.a, tt.b, got)
		}
		if got := SameTrouble(tt.b, tt.a); got != tt.want {
			t.Errorf("%v and %v: %v", tt.b, tt.a, got)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{first: backoffFirst}
	base := backoffFirst
	for i := range 12 {
		d := b.next(nil)
		if d < base/2 || d > min(base*3/2, backoffCap) {
			t.Errorf("delay %d is %v, around %v is wanted", i, d, base)
		}
		base = min(2*base, backoffBase)
	}
	b.reset()
	if d := b.next(nil); d > backoffFirst*3/2 {
		t.Errorf("%v after a reset", d)
	}
}

func TestBackoffHonoursRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		asked       int
		least, most time.Duration
	}{
		{5, 5 * time.Second, 6 * time.Second},
		{86400, retryAfterCap, retryAfterCap + backoffFirst},
		{-5, 0, 2 * time.Second},
	} {
		b := backoff{first: backoffFirst}
		err := &Error{err: apierrors.NewTooManyRequests("slow down", tt.asked)}
		if d := b.next(err); d < tt.least || d > tt.most {
			t.Errorf("%d s asked, waits %v", tt.asked, d)
		}
	}
}

// Nodes that lose the server in the same moment must not come back together.
func TestBackoffSpreads(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		b := backoff{first: backoffFirst}
		seen[b.next(nil).Truncate(10*time.Millisecond)] = true
	}
	if len(seen) < 30 {
		t.Errorf("100 nodes wait only %d different times", len(seen))
	}
}
