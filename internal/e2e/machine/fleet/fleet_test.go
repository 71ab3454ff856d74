package fleet

import (
	"testing"
	"time"
)

// Eight nodes answer by ssh, each for itself, and the faults are what they say.
func TestFleet(t *testing.T) {
	f := New(t, 8)
	began := time.Now()
	for _, n := range f.Nodes {
		r := f.SSH(n, "hostname; id -un; cat; exit 7")
		if r.Code != 7 || r.Stdout != n.Name+"\nroot\n" || r.Stderr != "" {
			t.Errorf("%s: %+v", n.Name, r)
		}
	}
	t.Logf("eight sessions, one after another: %.1f s", time.Since(began).Seconds())
	for name, count := range f.Connections() {
		if count != 1 {
			t.Errorf("%s: %d connections, want 1", name, count)
		}
	}
	for name, fault := range map[string]struct {
		set  func(f *Fleet, n *Node)
		says string
	}{
		"dead":           {func(f *Fleet, n *Node) { f.Set(n, Faults{Dead: true}) }, "Connection refused"},
		"silent":         {func(f *Fleet, n *Node) { f.Set(n, Faults{Silent: true}) }, "timed out"},
		"wrong host key": {func(f *Fleet, n *Node) { f.WrongHostKeys(n) }, "Host key verification failed"},
		"cut":            {func(f *Fleet, n *Node) { f.Set(n, Faults{CutAt: 3000}) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := f.For(t)
			bad, good := f.Nodes[1], f.Nodes[2]
			fault.set(f, bad)
			if r := f.SSH(bad, "true"); r.Code != 255 || !contains(r.Stderr, fault.says) {
				t.Errorf("%+v, want exit code 255 and %q", r, fault.says)
			}
			if r := f.SSH(good, "true"); r.Code != 0 {
				t.Errorf("the node beside it: %+v", r)
			}
		})
	}
	for _, n := range f.Nodes {
		if r := f.SSH(n, "true"); r.Code != 0 {
			t.Errorf("%s, when all is well again: %+v", n.Name, r)
		}
	}
}
