package target

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func TestInstallFromNothing(t *testing.T) {
	for _, kind := range []string{"packages", "programs"} {
		t.Run(kind, func(t *testing.T) {
			s := newScene(t)
			w := wanted(s.packages("1", "exit 0", ""))
			if kind == "programs" {
				w = wanted(s.bare("1", "exit 0"))
			}
			s.install(w)
			s.nothingStaged()
			for path, want := range map[string]string{
				"etc/clientmountd/service.token": "token-1", "etc/clientmountd/service.cert": "ca-1", "etc/nnf-dm/service.token": "token-2",
			} {
				if s.Get(path) != want {
					t.Errorf("%s is %q", path, s.Get(path))
				}
			}
			files := s.Files("etc/clientmountd", "etc/nnf-dm")
			for path, mode := range map[string]string{
				"/etc/clientmountd": "drwx------", "/etc/clientmountd/service.token": "-rw-------", "/etc/clientmountd/config.d": "drwx------",
				"/etc/nnf-dm": "drwxr-x---", "/etc/nnf-dm/service.token": "-rw-r-----", "/etc/nnf-dm/service.cert": "-rw-r-----",
			} {
				if !strings.HasPrefix(files[path], mode) {
					t.Errorf("%s is %s, want %s", path, files[path], mode)
				}
			}
			r, err := Probe(t.Context(), s.shell, w)
			if err != nil {
				t.Fatal(err)
			}
			if f := r.Files["/etc/nnf-dm/service.token"]; f.Owner != "root:nnf-dm" {
				t.Errorf("%+v", f)
			}
			if r.Units["clientmountd.service"].Active != "active" || r.Units["nnf-dm.socket"].Active != "active" || r.Versions["clientmountd"] != "1" {
				t.Errorf("%+v %+v", r.Units, r.Versions)
			}
			s.Log()
			if p := s.plan(w); !p.Empty() {
				t.Errorf("a second run would change:\n%s", changes(p))
			}
			if log := s.Log(); len(log) != 0 {
				t.Errorf("to look changes nothing: %q", log)
			}
		})
	}
}
