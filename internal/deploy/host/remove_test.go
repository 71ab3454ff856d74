package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (s *scene) remove(w *Want, force bool) (*Plan, error) {
	s.t.Helper()
	r, err := Probe(s.t.Context(), s.shell, w)
	if err != nil {
		s.t.Fatal(err)
	}
	return Remove(w, r, force)
}

// After uninstall a node has nothing of ours, however it came there.
func TestRemoveLeavesNothing(t *testing.T) {
	for _, kind := range []string{"packages", "programs"} {
		t.Run(kind, func(t *testing.T) {
			s := newScene(t)
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
			if left := s.Files("var/lib/nnf-deploy"); len(left) != 0 {
				t.Errorf("%v", left)
			}
			for _, unit := range []string{"clientmountd.service", "nnf-dm.socket"} {
				if got := s.Get("run/fake/active." + unit); got != "inactive\n" {
					t.Errorf("%s is %s", unit, got)
				}
			}
			if p, err := s.remove(w, false); err != nil || !p.Empty() {
				t.Errorf("a second time: %v %s", err, changes(p))
			}
		})
	}
}

func (s *scene) fileState(state, path string) string {
	for line := range strings.Lines(state) {
		if rest, ok := strings.CutPrefix(line, path+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// Nobody would unmount what clientmountd has mounted.
func TestRemoveMindsMounts(t *testing.T) {
	s := newScene(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	for _, name := range []string{"a", "b"} {
		s.Put("run/clientmountd/"+name+".json", "{}", 0o600)
	}
	_, err := s.remove(w, false)
	if p, ok := err.(*Problem); !ok || p.Text != "clientmountd has mounts in place there, for 2 ClientMounts" || !strings.Contains(p.Hint, "--force") {
		t.Errorf("%v", err)
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
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err != nil {
		t.Error(err)
	}
	if s.Get("run/clientmountd/a.json") == "" {
		t.Error("the records are gone")
	}
}
