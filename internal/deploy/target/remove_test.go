package target

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

func (s *testNode) remove(w *Want, force bool) (*Plan, error) {
	s.t.Helper()
	r, err := Probe(s.t.Context(), s.shell, w)
	if err != nil {
		s.t.Fatal(err)
	}
	return Remove(w, r, force)
}

// After uninstall, nothing of nnf-deploy remains on the node, with packages and with programs.
func TestRemoveLeavesNothing(t *testing.T) {
	for _, kind := range []string{"packages", "programs"} {
		t.Run(kind, func(t *testing.T) {
			s := newTestNode(t)
			s.Put("etc/clientmountd/site.toml", "mine", 0o600)
			if err := os.Chmod(filepath.Join(s.Root, "etc/clientmountd"), 0o700); err != nil {
				t.Fatal(err)
			}
			s.Put("etc/systemd/system/clientmountd.service", oldUnit, 0o644)
			before := s.state()
			w := wanted(s.packages("1", "exit 0", ""))
			if kind == "programs" {
				w = wanted(s.bare("1", "exit 0"))
			}
			w.Daemons[0].Arguments = []string{"--log-level=debug"}
			s.install(w)
			p, err := s.remove(w, false)
			if err != nil {
				t.Fatal(err)
			}
			o, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {})
			if err != nil {
				t.Fatalf("%v %+v", err, o)
			}
			want := strings.ReplaceAll(before, "/etc/systemd/system/clientmountd.service "+s.fileState(before, "/etc/systemd/system/clientmountd.service")+"\n", "")
			if after := s.state(); after != want {
				t.Errorf("before:\n%s\nafter:\n%s", want, after)
			}
			s.nothingKept()
			for _, unit := range []string{"clientmountd.service", "nnf-dm.socket"} {
				if got := s.Get("run/fake/active." + unit); got != "inactive\n" {
					t.Errorf("%s is %s", unit, got)
				}
			}
			if p, err := s.remove(w, false); err != nil || !p.Empty() {
				t.Errorf("a second uninstall: %v %s", err, changes(p))
			}
		})
	}
}

func (s *testNode) fileState(state, path string) string {
	for line := range strings.Lines(state) {
		if rest, ok := strings.CutPrefix(line, path+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// clientmountd is not removed while it has mounts, because no daemon would unmount them. A
// missing answer does not mean that there are no mounts.
func TestRemoveWithMounts(t *testing.T) {
	answer := func(m systemd.MountStatus) *systemd.Status {
		return &systemd.Status{Version: systemd.StatusVersion, Mounts: &m}
	}
	for _, tt := range []struct {
		name       string
		status     *systemd.Status
		want, hint string
		shown      Mounts
	}{
		{"mounts", answer(systemd.MountStatus{Count: 2}), "clientmountd has mounts in place for 2 ClientMounts", "wait until the jobs", Mounts{Count: 2}},
		{"idle", answer(systemd.MountStatus{}), "", "", Mounts{}},
		{"damaged records", answer(systemd.MountStatus{Unreadable: 1}), "1 records of clientmountd cannot be read, so mounts may be in place", "findmnt", Mounts{Unreadable: 1}},
		{"unknown number", answer(systemd.MountStatus{Error: "settings: bad"}), "cannot determine whether clientmountd has mounts in place: settings: bad", "findmnt", Mounts{Unknown: "settings: bad"}},
		{"older version", nil, "cannot determine whether clientmountd has mounts in place: clientmountd 1 gives no valid answer to status -o json: not JSON: unexpected end of JSON input", "install the current version", Mounts{Unknown: "*"}},
		{"newer version", &systemd.Status{Version: systemd.StatusVersion + 1}, "unsupported version 2 (this program reads version 1)", "findmnt", Mounts{Unknown: "*"}},
		{"answer without mounts", &systemd.Status{Version: systemd.StatusVersion}, "does not report mounts", "findmnt", Mounts{Unknown: "*"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestNode(t)
			w := wanted(s.packages("1", "exit 0", ""))
			s.install(w)
			s.setStatus("clientmountd", tt.status)
			r, err := Probe(t.Context(), s.shell, w)
			if err != nil {
				t.Fatal(err)
			}
			got := r.Daemons(w, time.Now())
			if got[1].Mounts != nil || got[0].Mounts == nil || tt.shown.Unknown != "*" && *got[0].Mounts != tt.shown || (got[0].Mounts.Unknown == "") != (tt.shown.Unknown == "") {
				t.Errorf("status: %+v %+v", got[0].Mounts, got[1].Mounts)
			}
			_, err = Remove(w, r, false)
			if p, ok := err.(*Problem); tt.want == "" && err != nil || tt.want != "" && (!ok || !strings.Contains(p.Text, tt.want) || !strings.Contains(p.Hint, tt.hint) || !strings.Contains(p.Hint, "--force")) {
				t.Errorf("%#v", err)
			}
			only := *w
			only.Daemons = w.Daemons[1:]
			if _, err := s.remove(&only, false); err != nil {
				t.Errorf("nnf-dm alone: %v", err)
			}
			p, err := s.remove(w, true)
			if err != nil {
				t.Fatal(err)
			}
			if (len(p.Notes) > 0) != (tt.want != "") {
				t.Errorf("%q", p.Notes)
			}
			if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err != nil {
				t.Error(err)
			}
		})
	}
}

// An uninstall also removes the units of "PROGRAM install" that an interrupted change from programs to
// packages has left.
func TestRemovePackagesAndOwnUnits(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	for _, d := range w.Daemons {
		s.Put("etc/systemd/system/"+d.Bin+".service", systemd.WrittenBy(d.Bin)+"\n", 0o644)
	}
	s.uninstall(w)
	for _, d := range w.Daemons {
		if text := s.Get("etc/systemd/system/" + d.Bin + ".service"); text != "" {
			t.Errorf("the unit of %s is left: %s", d.Bin, text)
		}
	}
	s.nothingKept()
}
