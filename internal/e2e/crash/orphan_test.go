package crash

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// vanish takes the object away although it has our finalizer, as an
// administrator may do in an emergency.
func (l *life) vanish() {
	l.t.Helper()
	if _, err := l.Cluster.Patch(l.Context(patience), "ClientMount", l.Node, l.name, lab.Object{"metadata": map[string]any{"finalizers": nil}}); err != nil {
		l.t.Fatal(err)
	}
	l.remove()
	l.await(isGone)
}

// forgotten waits until no record is left.
func (l *life) forgotten() {
	l.t.Helper()
	if _, err := l.daemons[len(l.daemons)-1].WaitReady(l.Context(patience)); err != nil {
		l.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		records, err := filepath.Glob(filepath.Join(l.Runtime, "mounts", "*"))
		if err != nil || time.Now().After(deadline) {
			l.t.Fatalf("there are still records: %q %v", records, err)
		}
		if len(records) == 0 {
			return
		}
	}
}

// The object is gone while no daemon runs. With orphans = "unmount" its mounts
// are taken down, killed at any boundary or not.
func TestOrphans(t *testing.T) {
	total := tally{name: "orphans total"}
	before := func(l *life) {
		mounted(l)
		l.vanish()
		l.flags = []string{"--orphans=unmount"}
		l.forget(l.t)
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newSet(t, k)
			l := s.life(t)
			before(l)
			l.start("")
			l.forgotten()
			boundaries, base := l.boundaries(), l.effects(t, l.path)
			l.over()
			n := tally{name: k.name + " orphan"}
			for _, b := range boundaries {
				n.run(t, b, func(t *testing.T) {
					l := s.life(t)
					before(l)
					l.start(b)
					l.dies()
					l.start("")
					l.forgotten()
					l.nothingMounted()
					l.judge(base, 1)
					l.over()
				})
			}
			n.print()
			total.add(n)
		})
	}
	total.print()
}

// The object is deleted and made again with the same name and path while no
// daemon runs. The new one has the mount, and takes it down at its end.
func TestMadeAgain(t *testing.T) {
	for _, k := range kinds {
		for _, policy := range []string{"report", "unmount"} {
			t.Run(k.name+"/"+policy, func(t *testing.T) {
				s := newSet(t, k)
				for _, at := range []string{"", "reconcile/begin", "record/saved", "record/saved#2", "orphan/begin", "orphan/undone"} {
					l := s.life(t)
					mounted(l)
					l.vanish()
					l.create()
					l.flags = []string{"--orphans=" + policy}
					if at != "" {
						d := l.start(at)
						over, cancel := l.until(d) // not every way passes every boundary
						_, _ = l.Cluster.WaitFor(over, "ClientMount", l.Node, l.name, isMounted)
						cancel()
						l.kill()
					}
					l.start("")
					l.settled()
					l.mountedOnce()
					l.end()
				}
			})
		}
	}
}

// Without the policy an orphan is left alone and reported.
func TestOrphanIsReported(t *testing.T) {
	s := newSet(t, kinds[0])
	l := s.life(t)
	mounted(l)
	l.vanish()
	d := l.start("")
	found := func(line lab.LogLine) bool { return line.Fields["event"] == "orphan" && line.Fields["paths"] == l.path }
	if _, err := d.WaitLog(l.Context(patience), found); err != nil {
		t.Fatal(err)
	}
	l.stop()
	l.mountedOnce()
	l.flags = []string{"--orphans=unmount"}
	l.start("")
	l.forgotten()
	l.over()
	if _, err := os.Stat(l.Base); !os.IsNotExist(err) {
		t.Error(err)
	}
}
