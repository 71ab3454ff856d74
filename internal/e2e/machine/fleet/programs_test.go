package fleet

import (
	"strings"
	"testing"
)

// Programs without packages, with the daemons' own units.
func TestPrograms(t *testing.T) {
	f := New(t, 2)
	older, newer := f.Releases()
	for _, r := range []*Release{older, newer} {
		expect(t, f.Ask("install", "--binary-dir", r.Programs), 0, all(f.Nodes, "ok"))
		for _, n := range f.Nodes {
			healthy(t, f, n, r)
		}
		f.Nodes[0].serves(strings.ReplaceAll(r.Version, ".", "-"))
	}
	before := processes(f.Nodes)
	expect(t, f.Ask("install", "--binary-dir", newer.Programs), 0, all(f.Nodes, "unchanged"))
	for name, now := range processes(f.Nodes) {
		if now != before[name] {
			t.Errorf("%s: %q before, %q now", name, before[name], now)
		}
	}
	// The packages take over from the programs.
	f.Distribution(f.Nodes...)
	expect(t, f.Ask("install", newer.PackageArguments()...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		healthy(t, f, n, newer)
		if path := n.Property("clientmountd", "FragmentPath"); path != "/usr/lib/systemd/system/clientmountd.service" && path != "/lib/systemd/system/clientmountd.service" {
			t.Errorf("%s: the unit is %s", n.Name, path)
		}
	}
	expect(t, f.Ask("uninstall"), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		if got := n.Release(); got != "none" {
			t.Errorf("%s has %s", n.Name, got)
		}
	}
}
