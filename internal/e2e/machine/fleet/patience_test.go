package fleet

import (
	"testing"
)

// Nodes that do not get on are given up, each in its time, and the others are
// not held up.
func TestPatience(t *testing.T) {
	f := New(t, 3)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	silent, crawling, good := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	f.Set(silent, Faults{Silent: true})
	f.Set(crawling, Faults{Rate: 100 << 10}) // minutes
	a := f.Ask("install", append(older.PackageArguments(), "--connect-timeout", "2s", "--node-timeout", "45s")...)
	expect(t, a, 1, map[string]string{silent.Name: "failed", crawling.Name: "failed", good.Name: "ok"})
	for n, cause := range map[*Node]string{silent: "timed out", crawling: "--node-timeout"} {
		if o := a.Nodes[n.Name]; !contains(o.Cause, cause) || o.Hint == "" {
			t.Errorf("%s: %+v", n.Name, o)
		}
		f.Set(n, Faults{})
		n.settled()
		if got := n.Release(older); got != "none" {
			t.Errorf("%s has %s", n.Name, got)
		}
	}
	healthy(t, f, good, older)
	expect(t, f.Ask("install", older.PackageArguments()...), 0, map[string]string{silent.Name: "ok", crawling.Name: "ok", good.Name: "unchanged"})
	for _, n := range f.Nodes {
		healthy(t, f, n, older)
	}
}
