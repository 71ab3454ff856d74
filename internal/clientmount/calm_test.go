package clientmount

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Idle is said once after work, later than the work, and never again by itself.
func TestIdleIsSaidOnce(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		var said atomic.Int32
		l := startLoop(t, b, func(o *Options) { o.Idle = func() { said.Add(1) } })
		expect := func(what string, n int32) {
			t.Helper()
			synctest.Wait()
			if got := said.Load(); got != n {
				t.Errorf("%s: said %d times, want %d", what, got, n)
			}
		}
		time.Sleep(time.Hour)
		expect("before the first list", 0)
		l.c.Replace(nil)
		expect("right after the list", 0)
		time.Sleep(idleAfter)
		expect("after the list", 1)

		time.Sleep(time.Hour)
		for range 3 { // what comes without work, as the watchdog's probe
			if err := l.c.Probe(context.Background()); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Hour)
		expect("nothing happened", 1)

		l.c.Upsert(b.server.object())
		time.Sleep(idleAfter - 1)
		expect("right after a mount", 1)
		b.want(dws.Unmounted)
		l.c.Upsert(b.server.object())
		time.Sleep(idleAfter - 1)
		expect("the next work began before", 1)
		time.Sleep(time.Nanosecond)
		expect("after the unmount", 2)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// While an attempt hangs the daemon is not idle, and stopping leaves no timer.
func TestIdleWaitsForAttempts(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		said := make(chan struct{}, 9)
		gate := make(chan struct{})
		b.machine.block["mount"] = gate
		l := startLoop(t, b, func(o *Options) { o.Idle = func() { said <- struct{}{} } })
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(said) != 0 {
			t.Error("idle while a mount hangs")
		}
		close(gate)
		time.Sleep(idleAfter - 1)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(said) != 0 {
			t.Error("idle was said after the end")
		}
	})
}
