package clientmount

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// A command of an earlier daemon that does not end keeps us from the path, and
// the status says which one.
func TestCommandOfEarlierDaemonHangs(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.effect([]string{"umount", testPath})
	b.machine.done()
	// This very process stands for it: it does not end.
	b.machine.left = map[string][]node.Left{markOf("aaaa-1"): {{PID: os.Getpid(), Line: "umount " + testPath}}}
	b.restart(b.rec.records)
	b.reconcile()
	if st := b.server.object().Status; st.Error == nil || !strings.Contains(st.Error.DebugMessage, "an earlier command still hangs") {
		t.Fatalf("status %s", describe(&st))
	}
	if b.machine.mounted(testPath) {
		t.Error("mounted beside a command that hangs")
	}
}

// The wait is done once in the life of a daemon, and again when it was cut
// short; without a record there is nothing to wait for.
func TestLeftCommandsAreWaitedForOnce(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	if !b.work.waited {
		t.Error("a new object waits")
	}
	b.machine.done()
	b.restart(b.rec.records)
	waits, cancel := context.WithCancel(t.Context())
	cancel()
	if res := b.rec.reconcile(t.Context(), waits, b.work, b.server.object()); res.failed || b.work.waited {
		t.Errorf("%+v, calm %t", res, b.work.waited)
	}
	b.expect("steps after a wait that was cut short", b.machine.done(), nil)
	if b.reconcile(); !b.work.waited || !b.machine.mounted(testPath) {
		t.Error("the next attempt does not go on")
	}
}

// An orphan's commands are waited for like an object's.
func TestOrphanWaitsForCommands(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.done()
	waits, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.rec.undo(t.Context(), waits, b.work.record.UID); err != errInterrupted {
		t.Errorf("%v", err)
	}
	b.expect("steps", b.machine.done(), nil)
}
