package clientmount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
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
		t.Error("removing twice: ", err)
	}
	if got, err := s.Load(r.UID); got != nil || err != nil {
		t.Errorf("%v %v", got, err)
	}
}

// A damaged record is said and kept; it neither stops the daemon nor hides the
// others.
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
