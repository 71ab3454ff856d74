package main

import (
	"syscall"
	"testing"
)

// The watchdog is pinged while the daemon answers, also one that serves nobody,
// and not while it does not.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	p := launch(t, short(t)+"/s", nil, []string{"WATCHDOG_USEC=200000"}, "--simulated")
	p.notice("READY=1")
	p.pings(3)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Error(err)
	}
	p.pings(3)
	p.signal(syscall.SIGTERM)
	p.ended(0)
}

// A value that cannot be understood is no reason not to serve.
func TestWatchdogNonsense(t *testing.T) {
	t.Parallel()
	p := launch(t, short(t)+"/s", nil, []string{"WATCHDOG_USEC=soon"}, "--simulated")
	p.notice("READY=1")
	p.logged(`level=WARN msg="the watchdog setting of the service manager is not understood"`)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Error(err)
	}
	p.signal(syscall.SIGTERM)
	p.ended(0)
}
