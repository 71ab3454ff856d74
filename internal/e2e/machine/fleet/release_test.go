package fleet

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The second release is another one, else no test of an upgrade proves anything.
func TestReleasesDiffer(t *testing.T) {
	f := New(t, 1)
	older, newer := f.Releases()
	for _, r := range []*Release{older, newer} {
		for _, p := range programs {
			out, err := exec.Command(filepath.Join(r.Programs, p), "version").Output()
			if p == "nnf-dmctl" {
				out, err = exec.Command(filepath.Join(r.Programs, p), "--version").Output()
			}
			if err != nil || !contains(string(out), r.Version) {
				t.Errorf("%s of %s says %q, %v", p, r.Version, out, err)
			}
		}
	}
	for _, p := range programs {
		if older.Sums[p] == newer.Sums[p] {
			t.Errorf("both releases have the same %s", p)
		}
	}
}
