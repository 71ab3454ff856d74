package clientmount

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// mounts returns the mounts in the records of a fixture.
func (f *fixture) mounts() []mountstate.Mount {
	f.t.Helper()
	root := f.t.TempDir() // no process, no device
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	doc, err := ReadMounts(f.rec.records.runtime, &node.Node{Root: root})
	if err != nil {
		f.t.Fatal(err)
	}
	return doc.Mounts
}

// one checks that there is one mount, in a state, and returns it.
func (f *fixture) one(state mountstate.State) mountstate.Mount {
	f.t.Helper()
	list := f.mounts()
	if len(list) != 1 || list[0].State != state || list[0].ClientMount != "default-job7-0-computes" || list[0].Workflow != "job7" || list[0].Path != testPath || list[0].Since.IsZero() {
		f.t.Fatalf("%+v, want one mount in the state %s", list, state)
	}
	return list[0]
}

var errTargetBusy = &node.CommandError{Line: "umount " + testPath, Err: node.ExitStatus(32), Stderr: "umount: " + testPath + ": target is busy."}

// The documents follow a mount through its life, with the error of each attempt that fails.
func TestReadMounts(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	if list := f.mounts(); len(list) != 0 {
		t.Fatalf("%+v", list)
	}
	f.machine.fail["mount"] = errors.New("no such device\x1b[2J")
	f.reconcile()
	m := f.one(mountstate.Failed)
	first := m.Failure
	if first == nil || first.Kind != mountstate.FailureOther || first.Step != "mount" || !strings.Contains(first.Text, `no such device\x1b[2J`) || m.Phase != mountstate.PhaseMount {
		t.Fatalf("%+v", m)
	}
	f.machine.fail["mount"] = errors.New("another text")
	f.reconcile()
	if m = f.one(mountstate.Failed); !strings.Contains(m.Failure.Text, "another text") || !m.Failure.Since.Equal(first.Since) {
		t.Fatalf("%+v, first %+v", m.Failure, first)
	}
	delete(f.machine.fail, "mount")
	f.reconcile()
	if m = f.one(mountstate.Mounted); m.Failure != nil || m.Device != testDevice || m.Type != "xfs" {
		t.Fatalf("%+v", m)
	}

	f.want(dws.Unmounted)
	f.machine.fail["umount"] = errTargetBusy
	f.reconcile()
	if m = f.one(mountstate.Busy); m.Failure.Kind != mountstate.FailureBusy || m.Failure.Step != "unmount" || m.Phase != mountstate.PhaseUnmount {
		t.Fatalf("%+v", m)
	}
	delete(f.machine.fail, "umount")
	f.reconcile()
	if m = f.one(mountstate.Unmounted); m.Failure != nil {
		t.Fatalf("%+v", m)
	}
	f.delete()
	f.reconcile()
	if list := f.mounts(); len(list) != 0 {
		t.Fatalf("%+v", list)
	}
}

// A ClientMount for which nothing could be started is shown with the reason, and no longer when it
// can be mounted or is gone.
func TestReadMountsWithoutRecord(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	profile := f.server.profile
	f.server.profile = nil
	f.reconcile()
	m := f.one(mountstate.Failed)
	if m.Failure == nil || !strings.Contains(m.Failure.Text, "unable to get file system information") || m.Type != "xfs" {
		t.Fatalf("%+v", m)
	}
	if rec, err := f.rec.records.Load("aaaa-1"); rec != nil || err != nil {
		t.Fatalf("there is a record: %+v %v", rec, err)
	}
	f.server.profile = profile
	f.reconcile()
	f.one(mountstate.Mounted)
	if left, _ := os.ReadDir(failuresDirectory(f.rec.records.runtime)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A record of a deleted ClientMount is an orphan.
func TestReadMountsOrphan(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.runLoop(t, nil, func(t *testing.T, l *loop) { l.Replace(nil) })
	if m := f.one(mountstate.Orphan); m.Failure != nil {
		t.Errorf("%+v", m)
	}
}

// Reports need no more than two additional writes of the record in a life without failures. The
// numbers are those of the operations themselves: before, target, mount, ready, and before, unmount,
// done.
func TestRecordWrites(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.missing = []string{testPath}
	f.reconcile()
	f.want(dws.Unmounted)
	f.reconcile()
	f.delete()
	f.reconcile()
	if n := f.rec.records.writes.Load(); n > 7+2 {
		t.Errorf("%d writes", n)
	}
	written := f.rec.records.writes.Load()
	g := newMounted(t, dws.TypeXFS)
	before := g.rec.records.writes.Load()
	for range 3 {
		g.reconcile()
	}
	if n := g.rec.records.writes.Load() - before; n != 0 || written == 0 {
		t.Errorf("checks of a ready mount write the record %d times", n)
	}
}

func TestDaemonState(t *testing.T) {
	dir := t.TempDir()
	if s, err := readDaemonState(dir); err != nil || s.describe().Running || s.describe().API != mountstate.APIUnknown {
		t.Errorf("%+v %v", s, err)
	}
	s := newDaemonState("compute-01", node.ProcessStart(os.Getpid()))
	show := func() mountstate.Daemon {
		t.Helper()
		if err := s.save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := readDaemonState(dir)
		if err != nil || got.Node != "compute-01" {
			t.Fatalf("%+v %v", got, err)
		}
		return got.describe()
	}
	if d := show(); !d.Running || d.PID != os.Getpid() || d.API != mountstate.APIConnecting {
		t.Errorf("%+v", d)
	}
	if !s.setAPI(kube.State{LastError: errors.New("refused\n")}) || s.setAPI(kube.State{LastError: errors.New("time-out")}) {
		t.Error("one outage is one change")
	}
	if d := show(); d.API != mountstate.APIUnreachable || d.APIError != "refused" {
		t.Errorf("%+v", d)
	}
	if !s.setAPI(kube.State{Connected: true}) {
		t.Error("the end of an outage is no change")
	}
	if d := show(); d.API != mountstate.APIConnected || d.APIError != "" {
		t.Errorf("%+v", d)
	}
	s.PID, s.Start = 1<<22+1, "" // no such process
	if d := show(); d.Running {
		t.Errorf("%+v", d)
	}
	s.PID, s.Start = os.Getpid(), "1" // the pid belongs to another process
	now := time.Now()
	s.Stopped = &now
	if d := show(); d.Running || d.API != mountstate.APIUnknown || d.Since == nil || !d.Since.Equal(now) {
		t.Errorf("%+v", d)
	}
	for _, text := range []string{"{", `{"version": 99}`} {
		if err := os.WriteFile(filepath.Join(dir, daemonStateName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readDaemonState(dir); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

// A failure has the same start as long as attempts fail in the same way, even if the API server
// answers. Then it is one write of the file.
func TestFailedRequestKeepsItsStart(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.server.fail["status"] = errors.New("the account may not write the status")
	f.reconcile()
	first := f.work.failure
	f.reconcile()
	if second := f.work.failure; first.Kind != mountstate.FailureAPI || second.Kind != first.Kind || !second.Since.Equal(first.Since) {
		t.Errorf("first %+v, then %+v", first, second)
	}
	if m := f.one(mountstate.Mounted); m.Failure != nil {
		t.Errorf("the mount is not affected: %+v", m)
	}
}

// A failure of the other direction is no longer shown, and does not date the next one back.
func TestFailureOfTheOtherDirection(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.server.profile = nil
	f.reconcile()
	old := f.work.failure
	f.want(dws.Unmounted)
	f.server.fail["status"] = errors.New("no")
	f.reconcile()
	f.want(dws.Mounted)
	delete(f.server.fail, "status")
	f.reconcile()
	if now := f.work.failure; now == nil || now.Kind != old.Kind || !now.Since.After(old.Since) {
		t.Errorf("before %+v, now %+v", old, now)
	}
}

// A ClientMount that is refused after a failed mount is shown as refused: waiting for it is of no use.
func TestRefusedAfterAFailure(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.fail["mount"] = errors.New("no such device")
	f.reconcile()
	f.one(mountstate.Failed)
	f.edit(func(cm *dws.ClientMount) { cm.Spec.Mounts[0].Type = "ntfs" })
	f.reconcile()
	if m := f.one(mountstate.Failed); m.Failure.Kind != mountstate.FailureRefused {
		t.Errorf("%+v", m.Failure)
	}
}

// A mount that cannot be planned is shown with the reason, next to those that can.
func TestUnplannedMounts(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(func(cm *dws.ClientMount) {
		twoMounts(cm)
		cm.Spec.Mounts[1].MountPath = "/opt/x"
	})
	f.rec.plan.Roots = []string{"/mnt"}
	f.reconcile()
	list := f.mounts()
	if len(list) != 2 || list[0].State != mountstate.Mounted || list[1].State != mountstate.Failed || list[1].Path != "/opt/x" || list[1].Type != "xfs" ||
		list[1].Failure == nil || list[1].Failure.Kind != mountstate.FailureRefused {
		t.Fatalf("%+v", list)
	}
	f.want(dws.Unmounted)
	f.reconcile()
	if list = f.mounts(); len(list) != 1 || list[0].State != mountstate.Unmounted {
		t.Errorf("%+v", list)
	}
}

// The file about a ClientMount without a record is small, whatever the object lists.
func TestNotedFailureIsBounded(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(func(cm *dws.ClientMount) {
		one := cm.Spec.Mounts[0]
		one.Type, one.Device.Type = strings.Repeat("\x1b", 1<<16), strings.Repeat("x", 1<<16)
		for i := range 3000 {
			one.MountPath = fmt.Sprint("/mnt/nnf/", i, strings.Repeat("x\n", 1<<10))
			cm.Spec.Mounts = append(cm.Spec.Mounts, one)
		}
	})
	f.reconcile()
	list := f.mounts()
	if len(list) != unplannedLimit || list[0].State != mountstate.Failed || list[0].Failure.Kind != mountstate.FailureRefused {
		t.Fatalf("%d mounts", len(list))
	}
	st, err := os.Stat(filepath.Join(failuresDirectory(f.rec.records.runtime), "aaaa-1.json"))
	if err != nil || st.Size() > 1<<20 {
		t.Errorf("%v %v", st.Size(), err)
	}
	for _, m := range list {
		if strings.ContainsAny(m.Path+m.Type, "\x1b\n") {
			t.Fatalf("%q %q", m.Path, m.Type)
		}
	}
}

// Files about failures do not outlive their object, not even if it disappears while no daemon runs.
func TestNotedFailureEnds(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.server.profile = nil
	left := func(when string, want int) {
		t.Helper()
		if list, _ := os.ReadDir(failuresDirectory(f.rec.records.runtime)); len(list) != want {
			t.Errorf("%s: %v", when, list)
		}
	}
	f.runLoop(t, nil, func(t *testing.T, l *loop) {
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		left("after a failure", 1)
		l.Replace(nil) // the watch has missed the deletion
		synctest.Wait()
		left("after the end of the object", 0)
	})
	f.reconcile()
	left("at the end of the daemon", 1)
	if _, err := OpenRecords(f.rec.records.runtime); err != nil {
		t.Fatal(err)
	}
	left("after a restart", 0)
}

// A command that waits in the kernel concerns the mounts that are being mounted or unmounted.
func TestStuckCommand(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(twoMounts)
	f.machine.fail["mount"] = errors.New("no")
	f.reconcile()
	rec := f.work.record
	rec.Mounts[0].Ready, rec.Mounts[0].Failure = true, nil
	if err := f.rec.records.Save(rec); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, data := range map[string]string{
		"uptime": "1000.00 0\n", "100/stat": "100 (mount) D 1 100 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 90000 0 0 0\n",
		"100/status":  fmt.Sprintf("Uid:\t%d\t%[1]d\t%[1]d\t%[1]d\n", os.Geteuid()),
		"100/environ": MarkVariable + "=aaaa-1\x00", "100/cmdline": "mount\x00/dev/x\x00",
	} {
		path := filepath.Join(root, "proc", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := ReadMounts(f.rec.records.runtime, &node.Node{Root: root})
	if err != nil || len(doc.Mounts) != 2 {
		t.Fatalf("%+v %v", doc, err)
	}
	ready, other := doc.Mounts[0], doc.Mounts[1]
	if ready.State != mountstate.Mounted || len(ready.Commands) > 0 {
		t.Errorf("the ready mount: %+v", ready)
	}
	if age := doc.Time.Sub(other.Since); other.State != mountstate.Stuck || len(other.Commands) != 1 || age < 99*time.Second || age > 101*time.Second {
		t.Errorf("the other one: %+v", other)
	}
}

// The order in which conditions decide the state.
func TestCondition(t *testing.T) {
	for want, c := range map[mountstate.State]condition{
		mountstate.Unmounted:  {unmounted: true, unmounting: true, orphan: true, hangs: true, failure: mountstate.FailureBusy},
		mountstate.Orphan:     {orphan: true, unmounting: true, hangs: true, failure: mountstate.FailureBusy},
		mountstate.Stuck:      {hangs: true, ready: true, failure: mountstate.FailureBusy},
		mountstate.Busy:       {unmounting: true, failure: mountstate.FailureBusy},
		mountstate.Failed:     {unmounting: true, failure: mountstate.FailureDevice},
		mountstate.Unmounting: {unmounting: true, ready: true, failure: mountstate.FailureAPI},
		mountstate.Mounted:    {ready: true},
		mountstate.Mounting:   {},
	} {
		if got := c.state(); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
}

// Any content of the files in the runtime directory is an answer or an error, never a panic, and each
// sentence is one line. A record that cannot be read is reported, as something may be mounted for it.
func FuzzRuntimeFiles(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"uid":"aaaa-1","name":"a\u001b[2Jb","workflow":"w\n","mounts":[{"plan":{"path":"/mnt/\u001b]0;x\u0007\n","type":"xfs"},"ready":true,"mounted":{"device":"../../.."}}]}`,
		`{"version":1,"uid":"aaaa-1","mounts":[{"failure":{"kind":"new","text":"a\nb"},"holders":[{"pid":-1,"text":"\u202e"}],"since":"0001-01-01T00:00:00Z"},{"unmounting":true}]}`,
		`{"version":1,"uid":"aaaa-1","orphan":"9999-12-31T23:59:59Z","unplanned":[{}],"steps":[{"seconds":-1e308,"tries":-1}],"mounts":[{"plan":{"path":""}}]}`,
		`{"version":1,"uid":"aaaa-1","mounts":null,"failure":{"kind":"refused"},"unplanned":[{"plan":{"path":"/mnt/x"}}]}`,
		`{"version":2,"uid":"aaaa-1","mounts":"of a newer version"}`,
		`{"version":1,"node":"n","pid":1,"start":"","api":"unreachable","api_error":"x\r\n"}`,
		`null`, "\x00", `{"version":1,"uid":"aaaa-1","mounts":[`,
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	root := &node.Node{Root: dir}
	record := filepath.Join(RecordsDirectory(dir), "aaaa-1.json")
	files := []string{record, filepath.Join(failuresDirectory(dir), "aaaa-1.json"), filepath.Join(dir, historyName), filepath.Join(dir, daemonStateName)}
	for _, name := range append(files, filepath.Join(dir, "proc", "x")) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range files {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadTimeline(dir); err != nil && name != files[3] {
				t.Errorf("%s: %v", name, err)
			}
			doc, err := ReadMounts(dir, root)
			_ = os.Remove(name)
			if err != nil {
				if name != files[3] {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if readable := json.Unmarshal(data, new(Record)) == nil; name == record && !readable && len(doc.Unreadable) != 1 {
				t.Errorf("an unreadable record is not reported: %+v", doc)
			}
			sentences := []string{mountstate.Evaluate(doc, mountstate.Grace{}, doc.Time).Line, doc.Daemon.Sentence(doc.Time)}
			for i := range doc.Mounts {
				sentences = append(sentences, doc.Mounts[i].Sentence(doc.Time))
			}
			for _, s := range sentences {
				if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(s) > 4096 {
					t.Errorf("not a line: %q", s)
				}
			}
		}
	})
}

func TestFailureKind(t *testing.T) {
	for want, list := range map[string][]error{
		mountstate.FailureStuck:   {node.ErrHangs},
		mountstate.FailureBusy:    {errTargetBusy},
		mountstate.FailureRefused: {dws.WrapError(dws.Fatal, "", errors.New("no"))},
		mountstate.FailureDevice:  {errNoLV, node.ErrNoDevice, node.ErrTimeoutVG},
		mountstate.FailureOther:   {errors.New("no"), nil},
	} {
		for _, err := range list {
			if err != nil {
				err = dws.WrapError(dws.Major, "unable to mount", fmt.Errorf("wrapped: %w", err))
			}
			if got := failureKind(err); got != want {
				t.Errorf("%v: %s, want %s", err, got, want)
			}
		}
	}
}

// A user who keeps a mount busy from a directory with a very long path does not fill the record.
func TestHoldersAreBounded(t *testing.T) {
	list := holdersOf([]node.Holder{{PID: 1, Command: "sh\n", Kind: "cwd", Path: strings.Repeat("/\x1b", 4000)}})
	if n := len(list[0].Text); n > holderLimit+len("…") || strings.ContainsAny(list[0].Text+list[0].Command, "\x1b\n") {
		t.Errorf("%d bytes: %+v", n, list[0])
	}
}

// The state of the token is in the document while the daemon runs, and the start of a condition stays.
func TestStateOfToken(t *testing.T) {
	expires := time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC)
	state := newDaemonState("c1", node.ProcessStart(os.Getpid()))
	steps := []struct {
		now       kube.TokenState
		condition string
		since     bool
	}{
		{kube.TokenState{Kind: kube.TokenShared, Condition: kube.TokenValid}, mountstate.TokenValid, false},
		{kube.TokenState{Kind: kube.TokenPerNode, Condition: kube.TokenRetrying, Expires: expires, Error: "a\nb", Failures: 1}, mountstate.TokenRetrying, true},
		{kube.TokenState{Kind: kube.TokenPerNode, Condition: kube.TokenFailing, Expires: expires, Error: "x", Hint: "h"}, mountstate.TokenFailing, true},
		{kube.TokenState{Kind: kube.TokenPerNode, Condition: kube.TokenValid, Unsaved: "full"}, mountstate.TokenUnsaved, true},
		{kube.TokenState{Kind: kube.TokenPerNode, Condition: kube.TokenExpired, Expires: expires}, mountstate.TokenExpired, true},
	}
	for _, s := range steps {
		state.setToken(s.now)
		dir := t.TempDir()
		if err := state.save(dir); err != nil {
			t.Fatal(err)
		}
		read, err := readDaemonState(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := read.describe().Token
		if got == nil || got.Condition != s.condition || (got.Since != nil) != s.since || got.Identity != string(s.now.Kind) || (got.Expires == nil) != s.now.Expires.IsZero() || strings.Contains(got.Error, "\n") {
			t.Errorf("%+v: %+v", s.now, got)
		}
	}
	state.setToken(steps[2].now)
	since := time.Now().Add(-time.Hour)
	state.Token.Since = &since
	if state.setToken(steps[2].now); !state.Token.Since.Equal(since) {
		t.Errorf("%v", state.Token.Since)
	}
	state.PID = -1
	if d := state.describe(); d.Token != nil {
		t.Errorf("of a stopped daemon: %+v", d.Token)
	}
}

// The reports include what nnf-dm has recorded about its token, also if that cannot be read.
func TestTokenOfMover(t *testing.T) {
	root, runtime := t.TempDir(), t.TempDir()
	for _, dir := range []string{"proc", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	token := func() *mountstate.Token {
		t.Helper()
		doc, err := ReadMounts(runtime, &node.Node{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		return doc.MoverToken
	}
	if k := token(); k != nil {
		t.Errorf("%+v", k)
	}
	record := daemon.RecordOf(root, "nnf-dm")
	if err := record.Record(kube.TokenState{Kind: kube.TokenPerNode, Condition: kube.TokenFailing, Error: "no route", Hint: "do it"}); err != nil {
		t.Fatal(err)
	}
	if k := token(); k == nil || k.Condition != mountstate.TokenFailing || k.Error != "no route" || k.Hint != "do it" {
		t.Errorf("%+v", k)
	}
	if err := os.WriteFile(filepath.Join(record.Directory, daemon.TokenRecordName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k := token(); k == nil || k.Condition != mountstate.TokenUnknown || !strings.Contains(k.Error, daemon.TokenRecordName) {
		t.Errorf("%+v", k)
	}
}
