package clientmount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

func TestRecordRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.ForMount(testObject(dws.TypeGFS2), 0, testProfile(), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRecord(testObject(dws.TypeGFS2), time.Now().UTC())
	r.Mounts = []MountRecord{{Plan: *p, Created: []string{"/mnt/nnf"}, Mounted: &Identity{ID: 7, Device: "253:7", Root: "/", FSType: "gfs2", Source: testDevice}, Ready: true}}
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load(r.UID)
	if err != nil || got.Name != r.Name || got.Workflow != "job7" || *got.Mounts[0].Mounted != *r.Mounts[0].Mounted || !got.Mounts[0].Plan.SamePlace(p) {
		t.Fatalf("%+v %v", got, err)
	}
	if len(got.Mounts[0].Plan.Unmount) != len(p.Unmount) {
		t.Error("the plan lost steps")
	}
	if st, _ := os.Stat(filepath.Join(dir, "mounts", r.UID+".json")); st.Mode() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if list, err := s.List(); len(list) != 1 || err != nil {
		t.Errorf("%v %v", list, err)
	}
	if err := s.Remove(r.UID); err != nil {
		t.Error(err)
	}
	if err := s.Remove(r.UID); err != nil {
		t.Error("second removal: ", err)
	}
	if got, err := s.Load(r.UID); got != nil || err != nil {
		t.Errorf("%v %v", got, err)
	}
}

// A damaged record is reported and kept; the other records are still returned.
func TestRecordDamage(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	good := newRecord(testObject(dws.TypeXFS), time.Now())
	if err := s.Save(good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cut.json":    `{"version":1,"na`,
		"newer.json":  `{"version":99,"uid":"newer"}`,
		"empty.json":  ``,
		"binary.json": "\x00\x01",
	} {
		if err := os.WriteFile(filepath.Join(dir, "mounts", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "mounts", "link.json")); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if len(list) != 1 || list[0].UID != good.UID {
		t.Errorf("list %v", list)
	}
	for _, name := range []string{"cut.json", "newer.json", "empty.json", "binary.json", "link.json"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %v", name, err)
		}
		if _, serr := os.Lstat(filepath.Join(dir, "mounts", name)); serr != nil {
			t.Errorf("%s was removed", name)
		}
	}
}

func TestRecordNames(t *testing.T) {
	s, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range []string{"", "../x", "a/b", "a b", strings.Repeat("a", 200), "a\x00b"} {
		if _, err := s.Load(uid); err == nil {
			t.Errorf("uid %q was accepted", uid)
		}
		if err := s.Save(&Record{UID: uid}); err == nil {
			t.Errorf("uid %q was saved", uid)
		}
		if err := s.Remove(uid); err == nil {
			t.Errorf("uid %q was removed", uid)
		}
	}
}

// A record that could not be removed is ignored until the next start.
func TestRecordThatCannotBeRemoved(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	records := f.rec.records
	file := filepath.Join(records.dir, "aaaa-1.json")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := records.Remove("aaaa-1"); err == nil {
		t.Fatal("it was removed")
	}
	if r, err := records.Load("aaaa-1"); r != nil || err != nil {
		t.Errorf("%+v %v", r, err)
	}
	if list, err := records.List(); err != nil || len(list) != 1 || list[0].UID != "aaaa-1" || list[0].pending() {
		t.Errorf("%+v %v", list, err)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	f.server.cm.UID = "aaaa-1"
	if err := records.Save(newRecord(f.server.cm, time.Now())); err != nil {
		t.Fatal(err)
	}
	if r, err := records.Load("aaaa-1"); r == nil || err != nil {
		t.Errorf("a new record is not found: %v", err)
	}
}

// An incomplete record of a crash is removed at the next start; the complete one stays.
func TestHalfWrittenRecords(t *testing.T) {
	dir := t.TempDir()
	records, err := OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := records.Save(&Record{Version: recordVersion, UID: "a-1"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a-1.json.new", "b-2.json.new"} {
		if err := os.WriteFile(filepath.Join(dir, "mounts", name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = OpenRecords(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "mounts"))
	if err != nil || len(left) != 1 || left[0].Name() != "a-1.json" {
		t.Errorf("%v %v", left, err)
	}
}

// An unchanged record is not written: a daemon that starts with a full or read-only
// directory still reports ready mounts.
func TestUnchangedRecord(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.restart(f.rec.records)
	records, file := f.rec.records, ""
	var err error
	if file, err = records.file("aaaa-1"); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if res := f.reconcile(); res.failed {
		t.Fatal(describe(&f.server.object().Status))
	}
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Errorf("the record was written again (%v)", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	f.reconcile()
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a removed record was not written again: %v", err)
	}
}

// Load can read every record that Save accepts, and Save does not write larger ones.
func TestRecordSize(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	rec := f.work.record.clone()
	for _, kilobytes := range []int{1, 4000, 5000} {
		rec.Mounts[0].Created = []string{strings.Repeat("a", kilobytes<<10)}
		saved := f.rec.records.Save(rec)
		if (saved == nil) != (kilobytes < 4096) {
			t.Errorf("%d kB: %v", kilobytes, saved)
		}
		if _, err := f.rec.records.Load(rec.UID); err != nil {
			t.Errorf("%d kB: %v", kilobytes, err)
		}
	}
}

// A ready mount stays ready if only what is reported cannot be saved. A change of what is mounted is an
// error.
func TestReportsThatCannotBeSaved(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	rec := f.work.record
	rec.Failure = &mountstate.Failure{Kind: mountstate.FailureOther, Text: "of an earlier attempt"}
	if err := f.rec.records.Save(rec); err != nil {
		t.Fatal(err)
	}
	// A directory with the name of the temporary file prevents writes.
	if err := os.MkdirAll(filepath.Join(f.rec.records.dir, "aaaa-1.json"+tempSuffix, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.restart(f.rec.records)
	if res := f.reconcile(); res.failed || !f.server.object().Status.AllReady {
		t.Errorf("%+v %s", res, describe(&f.server.object().Status))
	}
	changed := rec.clone()
	changed.Mounts[0].Unmounting = true
	if err := f.rec.records.Save(changed); err == nil {
		t.Error("a change of the mount was not saved")
	}
	if err := f.rec.records.Remove(rec.UID); err != nil {
		t.Fatal(err)
	}
	if err := f.rec.records.Save(rec); err == nil {
		t.Error("there is no record, and no error")
	}
}

// Steps, errors and holders that do not fit are left out: they must not prevent a mount or an unmount.
func TestRecordWithoutReports(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	rec := f.work.record.clone()
	long := strings.Repeat("a", 1<<20)
	rec.Steps = []mountstate.Step{{Path: long}, {Error: long}}
	rec.Mounts[0].Failure = &mountstate.Failure{Kind: mountstate.FailureBusy, Text: long}
	rec.Mounts[0].Holders = []mountstate.Holder{{Text: long}, {Text: long}}
	if err := f.rec.records.Save(rec); err != nil {
		t.Fatal(err)
	}
	saved, err := f.rec.records.Load(rec.UID)
	if err != nil || saved.Dropped != 2 || saved.Mounts[0].Failure.Kind != mountstate.FailureBusy || saved.Mounts[0].Mounted == nil {
		t.Errorf("%+v %v", saved, err)
	}
	if len(rec.Steps) != 2 || len(rec.Mounts[0].Failure.Text) != len(long) {
		t.Error("the record in memory was changed")
	}
	writes := f.rec.records.writes.Load()
	if err := f.rec.records.Save(rec); err != nil || f.rec.records.writes.Load() != writes {
		t.Errorf("an unchanged record is written again, %v", err)
	}
}

// A user who could create a file in the directory of records, or replace the directory,
// could run commands as root.
func TestOpenRecords(t *testing.T) {
	mkdir := func(t *testing.T, path string, mode os.FileMode) string {
		t.Helper()
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // regardless of the umask
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		make func(t *testing.T, base string) string // returns the runtime directory
		want string                                 // "" is accepted
	}{
		"new":         {func(_ *testing.T, base string) string { return base + "/run" }, ""},
		"new, deep":   {func(_ *testing.T, base string) string { return base + "/a/b/run" }, ""},
		"systemd's":   {func(t *testing.T, base string) string { return mkdir(t, base+"/run", 0o755) }, ""},
		"used before": {func(t *testing.T, base string) string { mkdir(t, base+"/run/mounts", 0o700); return base + "/run" }, ""},
		"in a sticky directory": {func(t *testing.T, base string) string {
			return mkdir(t, base+"/tmp", 0o777|os.ModeSticky) + "/run"
		}, ""},
		"in a directory open to all": {func(t *testing.T, base string) string { return mkdir(t, base+"/tmp", 0o777) + "/run" }, "is writable by other users and not sticky (mode 0777)"},
		"open to all":                {func(t *testing.T, base string) string { return mkdir(t, base+"/run", 0o777) }, "is writable by other users (mode 0777)"},
		"open to a group":            {func(t *testing.T, base string) string { return mkdir(t, base+"/run", 0o770) }, "is writable by other users (mode 0770)"},
		"records open to all": {func(t *testing.T, base string) string {
			mkdir(t, base+"/run/mounts", 0o707)
			return base + "/run"
		}, "mounts is writable by other users (mode 0707)"},
		"a file": {func(t *testing.T, base string) string {
			if err := os.WriteFile(base+"/run", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return base + "/run"
		}, "not a directory"},
		"a link": {func(t *testing.T, base string) string {
			if err := os.Symlink(mkdir(t, base+"/real", 0o700), base+"/run"); err != nil {
				t.Fatal(err)
			}
			return base + "/run"
		}, "run is a symbolic link"},
		"records are a link": {func(t *testing.T, base string) string {
			if err := os.Symlink(mkdir(t, base+"/real", 0o700), mkdir(t, base+"/run", 0o755)+"/mounts"); err != nil {
				t.Fatal(err)
			}
			return base + "/run"
		}, "mounts is a symbolic link"},
		"another user's": {func(t *testing.T, base string) string {
			dir := mkdir(t, base+"/run", 0o755)
			if err := os.Chown(dir, 12345, 0); err != nil {
				t.Skip("only root can change the owner of a directory: ", err)
			}
			return dir
		}, "owned by uid 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := test.make(t, mkdir(t, t.TempDir(), 0o755))
			_, err := OpenRecords(dir)
			switch {
			case test.want == "" && err != nil:
				t.Fatal(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "daemon.runtime_directory")):
				t.Fatalf("got %v, want %q and a hint", err, test.want)
			case test.want != "":
				return
			}
			st, err := os.Stat(filepath.Join(dir, "mounts"))
			if err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("the directory of records: %v %v", st, err)
			}
		})
	}
}

// countMounted counts the records that the daemon writes during the lifecycle of a
// ClientMount.
func TestCountMounted(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	runtime := filepath.Dir(f.rec.records.dir)
	look := func(want mountCount) {
		t.Helper()
		before, _ := os.ReadDir(runtime)
		got, err := countMounted(runtime, f.machine)
		if after, _ := os.ReadDir(runtime); err != nil || got != want || len(after) != len(before) {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
	}
	look(mountCount{})
	f.want(dws.Mounted)
	f.machine.fail["mount"] = errors.New("no such device")
	f.reconcile()
	if list, _ := f.rec.records.List(); len(list) != 1 {
		t.Fatalf("a mount that fails has %d records", len(list))
	}
	look(mountCount{})
	delete(f.machine.fail, "mount")
	f.reconcile()
	look(mountCount{Objects: 1})
	table := f.machine.table
	f.machine.table = nil // unmounted manually
	look(mountCount{})
	f.machine.table = table
	f.restart(f.rec.records)
	look(mountCount{Objects: 1})
	f.want(dws.Unmounted)
	f.reconcile()
	look(mountCount{})

	// Records that cannot be read are counted separately; half-written ones are not counted.
	for name, text := range map[string]string{"a.json": "{", "b.json": `{"version": 99}`, "c.json.new": "{"} {
		if err := os.WriteFile(filepath.Join(RecordsDirectory(runtime), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look(mountCount{Unreadable: 2})
	if got, err := countMounted(filepath.Join(runtime, "none"), f.machine); err != nil || got != (mountCount{}) {
		t.Errorf("%+v %v", got, err)
	}
	if err := errors.Join(os.RemoveAll(RecordsDirectory(runtime)), os.WriteFile(RecordsDirectory(runtime), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := countMounted(runtime, f.machine); err == nil {
		t.Error("a file in place of the directory is not an error")
	}
}

// If the mount table cannot be read, the record decides.
func TestCountMountedWithoutTable(t *testing.T) {
	for _, tt := range []struct {
		m    MountRecord
		want bool
	}{
		{MountRecord{}, false},
		{MountRecord{Mounting: true}, true},
		{MountRecord{Ready: true}, true},
		{MountRecord{Mounted: &Identity{ID: 7}}, true},
		{MountRecord{Mounted: &Identity{ID: 7}, Unmounted: true}, false},
	} {
		if got := tt.m.inPlace(noTable{}); got != tt.want {
			t.Errorf("%+v: %v", tt.m, got)
		}
	}
}

type noTable struct{}

func (noTable) MountsOn(string) ([]node.Mount, error) { return nil, errors.New("no /proc") }
