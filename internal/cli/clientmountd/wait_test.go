package clientmountd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// asRoot skips the test if it cannot read records like an administrator.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		require.Missing(t, "the sub-commands need root")
	}
}

// save writes records of ClientMounts of the workflow "job" as the daemon does.
func save(t *testing.T, records *clientmount.Records, name string, mounts ...clientmount.MountRecord) {
	t.Helper()
	for i := range mounts {
		mounts[i].Plan = plan.Plan{Path: "/mnt/nnf/" + name, Type: "xfs"}
	}
	r := &clientmount.Record{Version: 1, UID: "uid-" + name, Name: name, Namespace: "compute-07", Workflow: "job", Created: time.Now(), Mounts: mounts}
	if err := records.Save(r); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, runtime string) *clientmount.Records {
	t.Helper()
	records, err := clientmount.OpenRecords(runtime)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// buffer is written by a command and read by its test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// waiting is a running "wait".
type waiting struct {
	signals     chan os.Signal
	code        chan int
	out, errors buffer
}

func start(t *testing.T, args ...string) *waiting {
	t.Helper()
	w := &waiting{signals: make(chan os.Signal, 1), code: make(chan int, 1)}
	process := cli.Process{Stdout: &w.out, Stderr: &w.errors, Signals: w.signals}
	go func() {
		w.code <- Tools.Run(context.Background(), process, append([]string{"wait", "--config=/dev/null"}, args...))
	}()
	return w
}

// ends checks the exit code and the last line on standard error.
func (w *waiting) ends(t *testing.T, code int, line string) {
	t.Helper()
	select {
	case got := <-w.code:
		errs := strings.TrimSpace(w.errors.String())
		if got != code || !strings.Contains(errs, line) || strings.Contains(errs, "\n") || (line == "") != (errs == "") {
			t.Errorf("exit code %d, want %d; standard error %q, want %q", got, code, errs, line)
		}
	case <-time.After(time.Minute):
		t.Fatal("wait has not ended")
	}
}

// runs fails if the wait ends while the test passes some time.
func (w *waiting) runs(t *testing.T, why string) {
	t.Helper()
	wait.Pass(t, 200*time.Millisecond, why)
	select {
	case code := <-w.code:
		t.Fatalf("%s: wait has ended with %d: %s", why, code, w.errors.String())
	default:
	}
}

// The directory of the records appears during the wait, then the ClientMounts, one after the other.
func TestWaitMounted(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "run", "clientmountd")
	if err := os.Mkdir(filepath.Dir(runtime), 0o755); err != nil {
		t.Fatal(err)
	}
	w := start(t, "--workflow=job", "--for=mounted", "--timeout=1m", "--count=2", "--runtime-directory="+runtime)
	w.runs(t, "without the directory")
	records := open(t, runtime)
	save(t, records, "one", clientmount.MountRecord{})
	w.runs(t, "one is planned")
	save(t, records, "one", clientmount.MountRecord{Ready: true})
	w.runs(t, "one of two has arrived")
	save(t, records, "two", clientmount.MountRecord{Ready: true}, clientmount.MountRecord{Mounting: true})
	w.runs(t, "one mount of the second is missing")
	save(t, records, "two", clientmount.MountRecord{Ready: true}, clientmount.MountRecord{Ready: true})
	w.ends(t, 0, "")
}

// The runtime directory is removed and created again, as by systemd when the daemon restarts.
func TestWaitNewDirectory(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	save(t, open(t, runtime), "one", clientmount.MountRecord{})
	w := start(t, "--workflow=job", "--for=mounted", "--timeout=1m", "--runtime-directory="+runtime)
	w.runs(t, "one is planned")
	if err := os.RemoveAll(runtime); err != nil {
		t.Fatal(err)
	}
	save(t, open(t, runtime), "one", clientmount.MountRecord{Ready: true})
	w.ends(t, 0, "")
}

func TestWaitUnmounted(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	records := open(t, runtime)
	save(t, records, "one", clientmount.MountRecord{Ready: true})
	save(t, records, "two", clientmount.MountRecord{Ready: true})
	all := start(t, "--workflow=job", "--for=unmounted", "--timeout=1m", "--runtime-directory="+runtime)
	one := start(t, "--clientmount=one", "--for=unmounted", "--timeout=1m", "--runtime-directory="+runtime)
	all.runs(t, "both are mounted")
	save(t, records, "one", clientmount.MountRecord{Unmounted: true})
	one.ends(t, 0, "")
	all.runs(t, "the other is mounted")
	if err := records.Remove("uid-two"); err != nil {
		t.Fatal(err)
	}
	all.ends(t, 0, "")
}

// A record that cannot be read may belong to the workflow.
func TestWaitUnreadable(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	records := open(t, runtime)
	if err := records.Save(&clientmount.Record{Version: 99, UID: "newer"}); err != nil {
		t.Fatal(err)
	}
	start(t, "--workflow=job", "--for=unmounted", "--timeout=0s", "--runtime-directory="+runtime).ends(t, ExitTimeout, "newer.json has version 99")
	w := start(t, "--workflow=job", "--for=unmounted", "--timeout=1m", "--runtime-directory="+runtime)
	w.runs(t, "a record cannot be read")
	if err := records.Remove("newer"); err != nil {
		t.Fatal(err)
	}
	w.ends(t, 0, "")
}

// A prolog does not refuse the job if the state of the node is not known.
func TestWaitUnknown(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	records := open(t, runtime)
	w := start(t, "--workflow=job", "--for=mounted", "--timeout=1m", "--runtime-directory="+runtime)
	w.runs(t, "nothing has arrived")
	if err := os.WriteFile(filepath.Join(runtime, "daemon.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	save(t, records, "one", clientmount.MountRecord{})
	w.ends(t, ExitUnknown, "daemon.json is damaged")
}

func TestWaitTimeout(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	directory := "--runtime-directory=" + runtime
	start(t, "--workflow=job", "--for=unmounted", "--timeout=0s", directory).ends(t, 0, "")
	start(t, "--workflow=job", "--for=mounted", "--timeout=10ms", directory).ends(t, ExitTimeout, "not mounted within 10ms: no ClientMount of workflow job has arrived on this node; clientmountd not running")
	start(t, "--clientmount=one", "--for=mounted", "--timeout=0s", directory).ends(t, ExitTimeout, "ClientMount one has not arrived on this node")
	records := open(t, runtime)
	save(t, records, "one", clientmount.MountRecord{Ready: true})
	save(t, records, "two", clientmount.MountRecord{Ready: true, Unmounting: true})
	start(t, "--workflow=job", "--for=unmounted", "--timeout=0s", directory).ends(t, ExitTimeout, "not unmounted within 0s: unmount of /mnt/nnf/two running for ")
	start(t, "--workflow=other", "--for=mounted", "--timeout=0s", directory).ends(t, ExitTimeout, "no ClientMount of workflow other")
	start(t, "--clientmount=one", "--for=mounted", "--timeout=0s", "--count=2", directory).ends(t, ExitTimeout, "only 1 of 2 ClientMounts have arrived")

	w := start(t, "--workflow=job", "--for=mounted", "--timeout=0s", "-o", "json", directory)
	w.ends(t, ExitTimeout, "unmount of /mnt/nnf/two")
	if doc, err := mountstate.ParseMounts([]byte(w.out.String())); err != nil || len(doc.Mounts) != 2 {
		t.Errorf("%v\n%s", err, w.out.String())
	}
}

func TestWaitSignal(t *testing.T) {
	asRoot(t)
	for s, code := range map[os.Signal]int{os.Interrupt: 130, syscall.SIGTERM: 143} {
		w := start(t, "--workflow=job", "--for=mounted", "--runtime-directory="+filepath.Join(t.TempDir(), "clientmountd"))
		w.runs(t, "nothing has arrived")
		w.signals <- s
		w.ends(t, code, "ended by SIG")
	}
}

// The daemon notes a ClientMount that it refuses without a record.
func TestWaitEndsWhenRefused(t *testing.T) {
	asRoot(t)
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	records := open(t, runtime)
	w := start(t, "--workflow=job", "--for=mounted", "--timeout=1m", "--runtime-directory="+runtime)
	w.runs(t, "nothing has arrived")
	err := records.NoteFailure(&clientmount.Record{
		Version: 1, UID: "uid-one", Name: "one", Workflow: "job", Mounts: []clientmount.MountRecord{{Plan: plan.Plan{Path: "/srv/x"}}},
		Failure: &mountstate.Failure{Kind: mountstate.FailureRefused, Text: "outside mount.roots", Since: time.Now()},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.ends(t, 1, "mount of /srv/x refused for ")
}

func TestWaitRefused(t *testing.T) {
	w := waitSettings{workflow: "job", state: forMounted, count: 1}
	failed := mountstate.Mount{UID: "1", Path: "/srv/x", State: mountstate.Failed, Phase: mountstate.PhaseMount, Failure: &mountstate.Failure{Kind: mountstate.FailureRefused, Text: "outside mount.roots"}}
	doc := &mountstate.Mounts{Time: time.Now(), Mounts: []mountstate.Mount{{UID: "2", State: mountstate.Mounting}, failed}}
	if done, _, err := w.reached(doc); done || err == nil || err.Error() != "mount of /srv/x refused: outside mount.roots" {
		t.Errorf("%v %v", done, err)
	}
	// The workflow may still unmount it.
	w.state = forUnmounted
	if done, reason, err := w.reached(doc); done || reason == "" || err != nil {
		t.Errorf("%v %q %v", done, reason, err)
	}
	// The wait continues after a failure that a retry may correct.
	w.state, doc.Mounts[1].Failure.Kind = forMounted, mountstate.FailureOther
	if done, reason, err := w.reached(doc); done || !strings.HasPrefix(reason, "mount of /srv/x failing: outside mount.roots") || err != nil {
		t.Errorf("%v %q %v", done, reason, err)
	}
}

func TestWaitUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--for=mounted": "wait needs either --workflow or --clientmount",
		"--for=mounted --workflow=a --clientmount=b": "wait needs either --workflow or --clientmount",
		"--workflow=a":                             "wait needs --for mounted or --for unmounted",
		"--workflow=a --for=ready":                 `--for must be one of mounted, unmounted, not "ready"`,
		"--workflow=a --for=mounted --timeout=-1s": "--timeout must not be negative",
		"--workflow=a --for=mounted --count=0":     "--count must be at least 1",
		"--workflow=a --for=mounted more":          "unexpected argument",
	} {
		var errs bytes.Buffer
		if code := Tools.Run(t.Context(), cli.Process{Stderr: &errs}, append([]string{"wait"}, strings.Fields(args)...)); code != 2 || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: %d %s", args, code, &errs)
		}
	}
}
