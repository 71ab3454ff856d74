package clientmount

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

var update = flag.Bool("update", false, "write the golden file")

const (
	metricsGolden = "testdata/metrics.prom"
	maxSeries     = 97 // of a node, see docs/monitoring.md
)

// The file has all metrics, with escaped labels, in the text format of Prometheus.
func TestMetricsText(t *testing.T) {
	defer func(v string) { version.Version = v }(version.Version)
	version.Version = "v1.2.3-\"quoted\\\n"
	at := func(sec float64) time.Time { return time.UnixMilli(int64(sec * 1000)) }
	s := snapshot{up: true, started: at(1_764_500_000), written: at(1_764_500_100.25)}
	s.seen[typeIndex("xfs")], s.seen[typeIndex("none")] = true, true
	s.mounts[typeIndex("xfs")] = [len(shownStates)]int{1, 2, 3, 4, 5, 6, 7}
	for i := range s.failed {
		s.failed[i] = uint64(i)
	}
	m := newMetrics("/x.prom")
	m.step(plan.Mount, 1500*time.Millisecond, nil)
	m.step(plan.Mount, 250*time.Microsecond, errors.New("no"))
	m.step(plan.Unmount, 0, nil)
	m.step(plan.Activate, time.Hour, errInterrupted) // not counted
	m.step(plan.ServersFile, time.Hour, nil)         // not counted
	s.steps = m.steps
	s.api.connected, s.api.since, s.api.outages, s.api.reconnects = true, at(1_764_500_050.5), 3, 2
	s.token.kind, s.token.expires, s.token.renewal = kube.TokenPerNode, at(1_765_000_000), at(1_764_900_000)
	s.token.failing, s.token.renewals, s.token.failures = true, 4, 5
	s.mover = moverToken{true, at(1_765_000_100), true}

	if *update {
		if err := os.WriteFile(metricsGolden, s.text(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(metricsGolden)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.text()); got != string(want) {
		t.Errorf("got\n%s\nwant the text of %s", got, metricsGolden)
	}
	// The number of time series is bounded.
	for i := range s.seen {
		s.seen[i] = true
	}
	for i := range s.steps {
		s.steps[i].count = 1
	}
	series := strings.Count("\n"+string(s.text()), "\nclientmountd_")
	if series != maxSeries {
		t.Errorf("a node can have %d time series, not %d", series, maxSeries)
	}
	for _, m := range Metrics() {
		if !strings.Contains(string(want), "# TYPE "+m.Name+" "+m.Type+"\n"+m.Name) {
			t.Errorf("%s is not in the golden file", m.Name)
		}
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	require.Tool(t, "promtool")
	file, err := os.Open(metricsGolden)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = file
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// metricsLoop runs a loop that writes its metrics to a file, counts the writes and returns
// the text of the file.
type metricsLoop struct {
	*loop
	path   string
	writes atomic.Int32 // since the first one
}

func runMetrics(t *testing.T, typ string, test func(t *testing.T, l *metricsLoop)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clientmountd.prom")
	runLoop(t, typ, func(o *Options) { o.MetricsFile = path }, func(t *testing.T, l *loop) {
		synctest.Wait()
		m := &metricsLoop{loop: l, path: path}
		l.c.metrics.replace = func(text []byte) error { m.writes.Add(1); return l.c.metrics.replaceFile(text) }
		m.has("clientmountd_up 1", "clientmountd_api_connected 0")
		test(t, m)
	})
}

// has fails the test unless the file has these lines.
func (l *metricsLoop) has(lines ...string) {
	l.t.Helper()
	text, err := os.ReadFile(l.path)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, line := range lines {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			l.t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

// state checks the number of mounts of the type in each state; those that are not listed
// have none.
func (l *metricsLoop) state(typ string, want map[mountstate.State]int) {
	l.t.Helper()
	for _, s := range shownStates {
		l.has(fmt.Sprintf(`clientmountd_mounts{type="%s",state="%s"} %d`, typ, s, want[s]))
	}
}

// The life of a ClientMount takes four writes: before and after the mount and the unmount.
func TestMetricsOfALife(t *testing.T) {
	runMetrics(t, dws.TypeXFS, func(t *testing.T, l *metricsLoop) {
		gate := make(chan struct{})
		l.machine.block["mount"] = gate
		l.c.apiState(kube.State{Connected: true, Since: time.Now()})
		wait.Advance(10 * time.Second)
		l.writes.Store(0)

		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		l.state("xfs", map[mountstate.State]int{mountstate.Mounting: 1})
		wait.Advance(300 * time.Millisecond)
		close(gate)
		synctest.Wait()
		l.Upsert(l.server.object()) // our own write
		wait.Advance(time.Minute)
		l.state("xfs", map[mountstate.State]int{mountstate.Mounted: 1})
		l.has("clientmountd_api_connected 1", `clientmountd_step_duration_seconds_count{step="mount"} 1`, `clientmountd_step_last_duration_seconds{step="mount"} 0.3`,
			`clientmountd_step_failures_total{step="mount"} 0`, `clientmountd_failed_attempts_total{reason="other"} 0`)
		if n := l.writes.Load(); n != 2 {
			t.Errorf("%d writes for a mount", n)
		}

		gate = make(chan struct{})
		l.machine.block["umount"] = gate
		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		synctest.Wait()
		l.state("xfs", map[mountstate.State]int{mountstate.Unmounting: 1})
		close(gate)
		synctest.Wait()
		l.Upsert(l.server.object())
		synctest.Wait()
		l.delete()
		l.Upsert(l.server.object())
		synctest.Wait()
		l.Delete("compute-01", "default-job7-0-computes")
		wait.Advance(time.Minute)
		l.state("xfs", nil)
		if n := l.writes.Load(); n != 4 {
			t.Errorf("%d writes for a life", n)
		}
		wait.Advance(24 * time.Hour)
		for range 100 { // the watchdog
			if err := l.c.Probe(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if n := l.writes.Load(); n != 4 {
			t.Errorf("%d writes although nothing has changed", n-4)
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		l.has("clientmountd_up 0", "clientmountd_api_connected 0")
	})
}

// Changes within a second are written together, and none is lost.
func TestMetricsBurst(t *testing.T) {
	runMetrics(t, dws.TypeLustre, func(t *testing.T, l *metricsLoop) {
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(10 * time.Second)
		l.writes.Store(0)
		const count = 200
		for i := range count {
			cm := testObject(dws.TypeLustre)
			cm.Name, cm.UID = fmt.Sprint("other-", i), types.UID(fmt.Sprint("other-", i))
			cm.Spec.Mounts[0].MountPath, cm.Spec.Mounts[0].Device.Lustre.FileSystemName = "/mnt/nnf/"+cm.Name, fmt.Sprint("fs", i)
			l.Upsert(cm)
			time.Sleep(10 * time.Millisecond)
		}
		wait.Advance(10 * time.Second)
		l.state("lustre", map[mountstate.State]int{mountstate.Mounted: 1 + count})
		if n := l.writes.Load(); n < 2 || n > 4 {
			t.Errorf("%d writes for changes during 2 s, want at most one a second", n)
		}
	})
}

// The state of a failed mount does not change while it is retried, so each retry takes at
// most one write, for the counters.
func TestMetricsOfFailures(t *testing.T) {
	busy := &node.CommandError{Line: "umount", Stderr: "umount: target is busy.", Err: node.ExitStatus(32)}
	for name, test := range map[string]struct {
		command string
		err     error
		want    dws.State
		state   mountstate.State
		reason  string
		step    string
	}{
		"failed": {"mount", errors.New("no route"), dws.Mounted, mountstate.Failed, "other", "mount"},
		"busy":   {"umount", busy, dws.Unmounted, mountstate.Busy, "busy", "unmount"},
		"stuck":  {"umount", hung("umount"), dws.Unmounted, mountstate.Stuck, "stuck", "unmount"},
	} {
		t.Run(name, func(t *testing.T) {
			runMetrics(t, dws.TypeLustre, func(t *testing.T, l *metricsLoop) {
				if test.want == dws.Unmounted {
					l.Replace([]*dws.ClientMount{l.server.object()})
					wait.Advance(time.Minute)
					l.want(dws.Unmounted)
				}
				l.machine.fail[test.command] = test.err
				l.Replace([]*dws.ClientMount{l.server.object()})
				wait.Advance(2 * time.Second)
				l.state("lustre", map[mountstate.State]int{test.state: 1})
				gate := make(chan struct{})
				l.machine.mu.Lock()
				l.machine.block[test.command] = gate
				l.machine.mu.Unlock()
				wait.Advance(time.Minute) // a retry runs
				l.state("lustre", map[mountstate.State]int{test.state: 1})
				text, err := os.ReadFile(l.path)
				if err != nil {
					t.Fatal(err)
				}
				for _, start := range []string{`clientmountd_failed_attempts_total{reason="` + test.reason + `"} `, `clientmountd_step_failures_total{step="` + test.step + `"} `} {
					if !strings.Contains(string(text), start) || strings.Contains(string(text), start+"0\n") {
						t.Errorf("%s is 0 in\n%s", start, text)
					}
				}
				delete(l.machine.fail, test.command)
				close(gate)
				wait.Advance(2 * time.Minute)
				done := map[mountstate.State]int{}
				if test.want == dws.Mounted {
					done[mountstate.Mounted] = 1
				}
				if test.state != mountstate.Stuck { // the process that replaces the command keeps running
					l.state("lustre", done)
				}
			})
		})
	}
}

// Of two mounts, each has its own state.
func TestMetricsOfTwoMounts(t *testing.T) {
	runMetrics(t, dws.TypeXFS, func(t *testing.T, l *metricsLoop) {
		l.edit(twoMounts)
		l.machine.fail["mount -t xfs "+testDevice+" /mnt/nnf/second"] = errors.New("no")
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(2 * time.Second)
		l.state("xfs", map[mountstate.State]int{mountstate.Mounted: 1, mountstate.Failed: 1})
	})
}

// A request that fails is no failure of the mount, which waits for the API server.
func TestMetricsOfAnOutage(t *testing.T) {
	runMetrics(t, dws.TypeXFS, func(t *testing.T, l *metricsLoop) {
		l.c.apiState(kube.State{Connected: true, Since: time.Now()})
		l.server.fail["status"] = errors.New("no answer")
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(5 * time.Second)
		lost := kube.State{LastError: errors.New("no answer"), Since: time.Now()}
		l.c.apiState(lost)
		lost.LastError = errors.New("another")
		l.c.apiState(lost)
		wait.Advance(2 * time.Second)
		l.state("xfs", map[mountstate.State]int{mountstate.Mounting: 1})
		l.has("clientmountd_api_connected 0", "clientmountd_api_outages_total 1", "clientmountd_api_reconnects_total 0",
			fmt.Sprintf("clientmountd_api_last_change_timestamp_seconds %d", lost.Since.Unix()), `clientmountd_failed_attempts_total{reason="other"} 0`)
		delete(l.server.fail, "status")
		l.c.apiState(kube.State{Connected: true, Since: time.Now(), LastError: lost.LastError})
		wait.Advance(10 * time.Second)
		l.state("xfs", map[mountstate.State]int{mountstate.Mounted: 1})
		l.has("clientmountd_api_connected 1", "clientmountd_api_outages_total 1", "clientmountd_api_reconnects_total 1")
	})
}

// Mounts without a ClientMount are orphans, with the type in their record.
func TestMetricsOfOrphans(t *testing.T) {
	f := newMounted(t, dws.TypeRaw)
	path := filepath.Join(t.TempDir(), "clientmountd.prom")
	f.runLoop(t, func(o *Options) { o.MetricsFile = path }, func(t *testing.T, l *loop) {
		l.Replace(nil)
		wait.Advance(2 * time.Second)
		(&metricsLoop{loop: l, path: path}).state("raw", map[mountstate.State]int{mountstate.Orphan: 1})
	})
}

// A file that cannot be written is logged once, and mounts are not affected. The next
// change writes it.
func TestMetricsCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	var log bytes.Buffer
	runLoop(t, dws.TypeXFS, func(o *Options) {
		o.MetricsFile, o.Log = filepath.Join(dir, "clientmountd.prom"), slog.New(slog.NewTextHandler(&log, nil))
	}, func(t *testing.T, l *loop) {
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(time.Hour)
		if !l.machine.mounted(testPath) || !l.server.object().Status.AllReady {
			t.Fatal("not mounted")
		}
		if n := strings.Count(log.String(), "cannot write the metrics"); n != 1 {
			t.Errorf("%d records:\n%s", n, &log)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		wait.Advance(2 * time.Second)
		(&metricsLoop{loop: l, path: l.c.metrics.path}).state("xfs", nil)
		if !strings.Contains(log.String(), "the metrics are written again") {
			t.Errorf("no record of the end:\n%s", &log)
		}
	})
}

// A file system that does not respond delays neither mounts nor the probe, and a stop only
// for a second.
func TestMetricsFileSystemHangs(t *testing.T) {
	runMetrics(t, dws.TypeXFS, func(t *testing.T, l *metricsLoop) {
		hang := make(chan struct{})
		l.c.metrics.replace = func([]byte) error { l.writes.Add(1); <-hang; return nil }
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(time.Hour)
		if !l.machine.mounted(testPath) || !l.server.object().Status.AllReady {
			t.Fatal("not mounted")
		}
		if err := l.c.Probe(context.Background()); err != nil {
			t.Error(err)
		}
		began := time.Now()
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > metricsGrace {
			t.Errorf("the stop took %v", d)
		}
		if n := l.writes.Load(); n != 1 {
			t.Errorf("%d writes at the same time", n)
		}
		close(hang)
	})
}

// A panic while the metrics are written is a failed write.
func TestMetricsPanic(t *testing.T) {
	runMetrics(t, dws.TypeXFS, func(t *testing.T, l *metricsLoop) {
		l.c.metrics.replace = func([]byte) error { panic("no") }
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(time.Minute)
		if !l.machine.mounted(testPath) || !strings.Contains(l.c.metrics.failure, "panic: no") {
			t.Errorf("failure %q", l.c.metrics.failure)
		}
	})
}

// The values of labels are the states of package mountstate, and no types of invalid objects.
func TestMetricsLabels(t *testing.T) {
	shown := slices.DeleteFunc(slices.Clone(mountstate.States), func(s mountstate.State) bool { return s == mountstate.Unmounted })
	slices.Sort(shown)
	if got := slices.Sorted(slices.Values(shownStates[:])); !slices.Equal(got, shown) {
		t.Errorf("the states in metrics are %q, want %q", got, shown)
	}
	for typ, want := range map[string]string{"lustre": "lustre", "none": "raw", "xfs": "xfs", "": "other", "evil\"\n": "other", "ext4": "other"} {
		if got := mountTypes[typeIndex(typ)]; got != want {
			t.Errorf("%q: %s, want %s", typ, got, want)
		}
	}
}

// Without the setting, or without a change, nothing is allocated for metrics.
func TestMetricsOff(t *testing.T) {
	var off *metrics
	c := &Controller{}
	err := errors.New("no")
	if n := testing.AllocsPerRun(100, func() {
		off.step(plan.Mount, time.Second, err)
		off.attempt(result{failed: true})
		off.apiState(kube.State{}, kube.State{Connected: true})
		c.publishMetrics()
		c.closeMetrics()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if newMetrics("") != nil {
		t.Error("on without a file")
	}
	on := &Controller{metrics: newMetrics("/x.prom"), objects: map[string]*object{"one": {newest: testObject(dws.TypeXFS)}}}
	on.metrics.last = on.takeMetrics()
	if n := testing.AllocsPerRun(100, on.publishMetrics); n != 0 {
		t.Errorf("%v allocations although nothing has changed", n)
	}
}

func TestMetricsFileName(t *testing.T) {
	for path, ok := range map[string]bool{
		"": true, "/var/lib/x/clientmountd.prom": true, "clientmountd.prom": false, "/x/clientmountd.txt": false, "/x/.prom": false,
		"/x/../y.prom": false, "/x/a.prom/": false, "/x/a.prom.new": false,
	} {
		if err := metricsFile(path); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// clientmountd looks at the recorded state of the token of nnf-dm once in its life, and once an hour
// while it is not renewed.
func TestMetricsOfMover(t *testing.T) {
	runMetrics(t, dws.TypeXFS, func(t *testing.T, l *metricsLoop) {
		var recorded atomic.Pointer[mountstate.Token]
		start := time.Now()
		set := func(condition string, renewal, expires int) {
			at := func(hours int) *time.Time { return mountstate.Known(start.Add(time.Duration(hours) * time.Hour)) }
			recorded.Store(&mountstate.Token{Condition: condition, Renewal: at(renewal), Expires: at(expires)})
		}
		pass := func(hours int) (writes int32) {
			before := l.writes.Load()
			wait.Advance(time.Duration(hours) * time.Hour)
			return l.writes.Load() - before
		}
		expiry := func(hours int) string {
			return fmt.Sprintf("clientmountd_nnf_dm_token_expiry_timestamp_seconds %d", start.Add(time.Duration(hours)*time.Hour).Unix())
		}
		absent := func() {
			t.Helper()
			if text, err := os.ReadFile(l.path); err != nil || strings.Contains(string(text), "\nclientmountd_nnf_dm_token") {
				t.Errorf("%v\n%s", err, text)
			}
		}
		absent()
		l.c.do(func() { l.c.metrics.mover = recorded.Load })
		set(mountstate.TokenValid, 80, 100)
		l.c.tokenChanged(kube.TokenState{Kind: kube.TokenShared, Condition: kube.TokenValid}) // any change
		if n := pass(1); n != 1 {
			t.Errorf("%d writes", n)
		}
		l.has("clientmountd_nnf_dm_token_failing 0", expiry(100))
		if n := pass(88); n != 0 {
			t.Errorf("%d writes before the middle of the time for the renewal", n)
		}
		set(mountstate.TokenValid, 160, 180) // nnf-dm has renewed it
		if n := pass(2); n != 1 {
			t.Errorf("%d writes in the middle", n)
		}
		l.has("clientmountd_nnf_dm_token_failing 0", expiry(180))
		set(mountstate.TokenFailing, 160, 180)
		if n := pass(81); n != 2 { // after 170 and 171 hours
			t.Errorf("%d writes at the next middle", n)
		}
		l.has("clientmountd_nnf_dm_token_failing 1")
		recorded.Store(nil) // the account is shared again
		if n := pass(1000); n != 1 {
			t.Errorf("%d writes without a record", n)
		}
		absent()
	})
}
