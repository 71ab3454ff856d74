package fleet

import (
	"path/filepath"
	"testing"
)

// The nodes are as nodes of a site: rpm installs, or dnf does where something
// is missing.
func TestDistribution(t *testing.T) {
	f := New(t, 2)
	older, _ := f.Releases()
	known, offered := f.Nodes[0], f.Nodes[1]
	f.Distribution(known)
	f.Repository(offered)
	for _, n := range f.Nodes {
		for _, p := range older.Packages {
			if contains(filepath.Base(p), "deploy") {
				continue // is for administrators
			}
			n.Put("/root/rpm/"+filepath.Base(p), 0o644, []byte(readFile(t, p)))
		}
	}
	known.Do("rpm -U /root/rpm/*.rpm")
	if out, code, err := offered.Run(offered.Context(), "rpm -U /root/rpm/*.rpm"); err != nil || code == 0 || !contains(out, "Failed dependencies") {
		t.Errorf("rpm alone, where dependencies are not installed: %v, exit code %d: %s", err, code, out)
	}
	offered.Do("dnf -y -q install /root/rpm/*.rpm")
	for _, n := range f.Nodes {
		if got := n.Release(older); got != older.Version {
			t.Errorf("%s has %s", n.Name, got)
		}
		n.Do("rpm -q distribution")
	}
}
