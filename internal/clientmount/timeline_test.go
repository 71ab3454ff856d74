package clientmount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

// lives returns the timeline of a fixture.
func (f *fixture) lives() []mountstate.Life {
	f.t.Helper()
	doc, err := ReadTimeline(f.rec.records.runtime)
	if err != nil {
		f.t.Fatal(err)
	}
	return doc.Lives
}

// The timeline has the steps of mount and unmount, with retries as one step, and stays after the
// end of the ClientMount.
func TestTimeline(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.rec.records.KeepHistory(HistoryLimits{Lives: 10, Bytes: 1 << 20})
	f.machine.fail["mount"] = errors.New("no such device")
	f.reconcile()
	delete(f.machine.fail, "mount")
	f.reconcile()
	lives := f.lives()
	if len(lives) != 1 || lives[0].Ended != nil || lives[0].Ready == nil || lives[0].Workflow != "job7" {
		t.Fatalf("%+v", lives)
	}
	f.reconcile() // only checks
	if again := f.lives(); len(again[0].Steps) != len(lives[0].Steps) {
		t.Errorf("a check of a ready mount adds steps: %+v", again[0].Steps)
	}
	f.want(dws.Unmounted)
	f.reconcile()
	f.delete()
	f.reconcile()
	lives = f.lives()
	if len(lives) != 1 || lives[0].Ended == nil {
		t.Fatalf("%+v", lives)
	}
	var got []string
	for _, s := range lives[0].Steps {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %dx %s", s.Phase, s.Kind, s.Name, s.Tries, strings.TrimPrefix(s.Path, testPath))))
		if s.Started.IsZero() || s.Finished.Before(s.Started) || s.Seconds < 0 || s.Failed {
			t.Errorf("%+v", s)
		}
	}
	f.expect("steps", got, []string{
		"mount api read NnfStorageProfile 2x",
		"mount api write finalizers 1x",
		"mount hook preActivate[0] 2x",
		"mount activate activate 2x",
		"mount wait waitDevice 2x",
		"mount mount mount 2x",
		"mount api write status 2x",
		"mount retry pause before a retry 1x",
		"mount hook postMount[0] 1x",
		"unmount api read NnfStorageProfile 1x",
		"unmount hook preUnmount[0] 1x",
		"unmount mount unmount 1x",
		"unmount activate deactivate 1x",
		"unmount hook postDeactivate[0] 1x",
		"unmount api write status 1x",
		"unmount api write finalizers 1x",
	})
}

// The timelines that tests of other packages use have the steps that the controller records.
func TestSample(t *testing.T) {
	profile, object := testProfile(), testObject(dws.TypeGFS2)
	b, fs := &profile.Data.GFS2.BlockDevice.Compute.User, &profile.Data.GFS2.FileSystem.Compute.User
	b.PostActivate, b.PostDeactivate, fs.PreMount, fs.PostUnmount = []string{"post-activate"}, nil, []string{"pre-mount"}, []string{"post-unmount"}
	object.Spec.Mounts[0].SetPermissions = true
	f := newFixture(t, dws.TypeGFS2)
	f.server = newFakeServer(object, profile)
	f.restart(f.rec.records)
	f.rec.records.KeepHistory(HistoryLimits{Lives: 10, Bytes: 1 << 20})
	f.reconcile()
	f.want(dws.Unmounted)
	f.reconcile()
	f.delete()
	f.reconcile()
	steps := func(l *mountstate.Life) (list []string) {
		for _, s := range l.Steps {
			if s.Name != mountstate.NameServed { // only if the server does not serve the newest known version
				list = append(list, fmt.Sprintf("%s %s %s, path %t", s.Phase, s.Kind, s.Name, s.Path != ""))
			}
		}
		return list
	}
	f.expect("steps", steps(&sample.Node("compute-01", 0).Lives[0]), steps(&f.lives()[0]))
}

// The history stays within its limits, keeps the newest lives, and survives an incomplete line.
func TestHistory(t *testing.T) {
	dir := t.TempDir()
	limits := HistoryLimits{Lives: 40, Bytes: 16 << 10}
	h := newHistory(dir, limits)
	add := func(h *history, i int) {
		t.Helper()
		life := mountstate.Life{ClientMount: fmt.Sprint("m", i), UID: fmt.Sprint("u", i), Started: time.Unix(int64(i), 0)}
		for range i % 7 {
			life.Steps = append(life.Steps, mountstate.Step{Name: "mount", Error: strings.Repeat("x", 100)})
		}
		if err := h.add(life); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(dir, historyName))
		if err != nil || st.Size() > int64(limits.Bytes) || st.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", st, err)
		}
	}
	for i := range 200 {
		if i == 100 { // the daemon was killed while it wrote a line
			f, err := os.OpenFile(h.path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = f.WriteString(`{"uid":"x"`); err != nil {
				t.Fatal(err)
			}
			f.Close()
			h = newHistory(dir, limits)
		}
		add(h, i)
	}
	lives, _, _, err := readHistory(h.path)
	if err != nil || len(lives) < 10 || len(lives) > limits.Lives || lives[len(lives)-1].UID != "u199" {
		t.Fatalf("%d lives, %v", len(lives), err)
	}
	for i := 1; i < len(lives); i++ {
		if !lives[i].Started.After(lives[i-1].Started) {
			t.Errorf("%s follows %s", lives[i].UID, lives[i-1].UID)
		}
	}
	none := newHistory(t.TempDir(), HistoryLimits{Lives: 0, Bytes: 1})
	if err := none.add(lives[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(none.path); err == nil {
		t.Error("a history of length 0 has a file")
	}
}

// A life after an incomplete line is kept, lines of a newer version are skipped, and a file
// of another program is replaced.
func TestDamagedHistory(t *testing.T) {
	for name, tt := range map[string]struct {
		data string
		want int
	}{
		"killed while writing": {`{"uid":"u0","started":"2026-01-01T00:00:00Z"}` + "\n" + `{"uid":"x","st`, 2},
		"newer version":        {`{"version":2,"uid":"u0"}` + "\n", 1},
		"zeros":                {strings.Repeat("\x00", 4096), 1},
		"other types":          {`{"uid":"u0","steps":"none"}` + "\n[]\nnull\n\n", 1},
		"too large":            {"large", 1},
	} {
		h := newHistory(t.TempDir(), HistoryLimits{Lives: 10, Bytes: 1 << 20})
		if err := os.WriteFile(h.path, []byte(tt.data), 0o600); err != nil {
			t.Fatal(err)
		}
		if tt.data == "large" {
			if err := os.Truncate(h.path, historyReadLimit+1); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.add(mountstate.Life{UID: "u1"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		lives, _, damaged, err := readHistory(h.path)
		if err != nil || damaged || len(lives) != tt.want || lives[len(lives)-1].UID != "u1" {
			t.Errorf("%s: %+v, damaged %t, %v", name, lives, damaged, err)
		}
	}
}

// A full history of the largest size is shortened in a time that grows with its size only.
func TestLargeHistory(t *testing.T) {
	const count, most = 10000, 64
	h := newHistory(t.TempDir(), HistoryLimits{Lives: count, Bytes: 64 << 20})
	var data []byte
	for i := range count {
		data = fmt.Appendf(data, `{"version":1,"uid":"u%d","clientmount":"%s"}`+"\n", i, strings.Repeat("x", 60))
	}
	if err := os.WriteFile(h.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := h.add(mountstate.Life{UID: "last"}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > most*uint64(len(data)) {
		t.Errorf("%d bytes were allocated for a file of %d bytes", used, len(data))
	}
	lives, _, damaged, err := readHistory(h.path)
	if err != nil || damaged || len(lives) != count*3/4+1 || lives[0].UID != "u2500" || lives[len(lives)-1].UID != "last" {
		t.Errorf("%d lives, damaged %t, %v", len(lives), damaged, err)
	}
}

// A life is shown once: neither a record that cannot be removed nor one that is removed while it is
// read leads to two.
func TestLifeIsShownOnce(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	records := f.rec.records
	records.KeepHistory(HistoryLimits{Lives: 10, Bytes: 1 << 20})
	r := f.work.record
	name, err := records.file(r.UID)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(name), os.MkdirAll(filepath.Join(name, "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := records.End(r); err == nil {
			t.Fatal("a directory was removed")
		}
	}
	if lives, _, _, _ := readHistory(records.history.path); len(lives) != 0 {
		t.Errorf("it has not ended: %+v", lives)
	}
	if err := errors.Join(os.RemoveAll(name), records.End(r)); err != nil {
		t.Fatal(err)
	}
	r.onDisk = [32]byte{}
	if err := records.Save(r); err != nil { // as if the reader had seen it before
		t.Fatal(err)
	}
	if lives := f.lives(); len(lives) != 1 || lives[0].Ended == nil {
		t.Errorf("%+v", lives)
	}
}

// The number of steps is bounded.
func TestStepLimit(t *testing.T) {
	var l stepLog
	for i := range stepLimit + 10 {
		l.add(fmt.Sprint(i), mountstate.PhaseMount, mountstate.StepMount, "mount", time.Now(), nil)
	}
	if len(l.Steps) != stepLimit || l.Dropped != 10 {
		t.Errorf("%d steps, %d dropped", len(l.Steps), l.Dropped)
	}
}
