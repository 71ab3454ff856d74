package clientmount

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// A status that cannot be written for long is one line in the log, also when
// the mount fails at the same time, and whatever the texts name.
func TestRefusedWriteIsLoggedOnce(t *testing.T) {
	for _, mountFails := range []bool{false, true} {
		t.Run(fmt.Sprintf("mount fails %v", mountFails), func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			var out bytes.Buffer
			b.rec.log = slog.New(slog.NewTextHandler(&out, nil))
			if mountFails {
				b.machine.fail["mount"] = errors.New("no such device")
			}
			for i := range 5 {
				b.server.fail["status"] = fmt.Errorf("read from port %d: connection reset", 4000+i)
				b.reconcile()
			}
			count := func(text string, want int) {
				t.Helper()
				if n := strings.Count(out.String(), text); n != want {
					t.Errorf("%q is there %d times, want %d:\n%s", text, n, want, &out)
				}
			}
			count("cannot write the status", 1)
			if mountFails {
				count("ClientMount failed", 1)
			}
			b.server.fail["status"] = apierrors.NewUnauthorized("who are you")
			b.reconcile()
			count("cannot write the status", 2) // another trouble
			delete(b.server.fail, "status")
			b.reconcile()
			b.want(dws.Unmounted)
			b.server.fail["status"] = apierrors.NewUnauthorized("who are you")
			b.reconcile()
			count("cannot write the status", 3) // the same once more, after a success
		})
	}
}

// An outage is one line as long as it is of one kind.
func TestOutageIsLoggedOnce(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := startLoop(t, b, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&out, nil)) })
		for i := range 5 {
			time.Sleep(time.Second)
			l.c.APIState(kube.State{LastError: fmt.Errorf("read from port %d: connection reset", 4000+i), Since: time.Now()})
		}
		l.c.APIState(kube.State{LastError: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}, Since: time.Now()})
		l.c.APIState(kube.State{LastError: fmt.Errorf("%w: knows v1alpha7", kube.ErrNotServed), Since: time.Now()})
		l.c.APIState(kube.State{Connected: true, Synced: true, Since: time.Now()})
		if err := l.c.Probe(context.Background()); err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSpace(out.String()), "\n")
		want := []string{"port 4000", "unknown authority", "knows v1alpha7", "answers again"}
		if len(got) != len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), &out)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("line %d is %q, want %q in it", i, got[i], want[i])
			}
		}
		if !strings.Contains(got[3], "down=4s") {
			t.Errorf("the whole outage took 4 s, said is %q", got[3])
		}
		if err := l.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// Who keeps a mount busy is logged once, and not with each attempt.
func TestBusyMountIsLoggedOnce(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	var out bytes.Buffer
	b.rec.log = slog.New(slog.NewTextHandler(&out, nil))
	b.machine.fail["umount"] = &node.CommandError{Line: "umount " + testPath, Stderr: "umount: " + testPath + ": target is busy.\n", Err: node.ExitStatus(32)}
	b.want(dws.Unmounted)
	for range 5 {
		b.reconcile()
	}
	if n := strings.Count(out.String(), "mount is in use"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &out)
	}
	if text := b.server.object().Status.Error.DebugMessage; !strings.Contains(text, "in use by pid 4242 (vim, uid 1001)") {
		t.Errorf("the status says %q", text)
	}
	delete(b.machine.fail, "umount")
	b.reconcile()
	if s := b.server.object().Status; !s.AllReady {
		t.Errorf("%+v", s)
	}
}
