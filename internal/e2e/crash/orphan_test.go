package crash

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// vanish removes the object despite our finalizer, as an administrator may do in an
// emergency.
func (l *testCase) vanish() {
	l.t.Helper()
	l.Must(l.Cluster.DropFinalizers(l.Context(patience), "ClientMount", l.Node, l.name))
	l.remove()
	l.await(isGone)
}

// forgotten waits until no record is left.
func (l *testCase) forgotten() {
	l.t.Helper()
	l.Ready(l.daemons[len(l.daemons)-1])
	wait.Until(l.t, "the removal of all records", func() bool {
		records, err := filepath.Glob(filepath.Join(l.Runtime, "mounts", "*"))
		return err == nil && len(records) == 0
	})
}

// The object is removed while no daemon runs. With orphans = "unmount" its mounts are
// unmounted, even if the daemon is killed at any boundary.
func TestOrphans(t *testing.T) {
	total := tally{name: "orphans total"}
	before := func(l *testCase) {
		mounted(l)
		l.vanish()
		l.flags = []string{"--orphans=unmount"}
		l.forget(l.t)
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newSet(t, k)
			l := s.newCase(t)
			before(l)
			l.start("")
			l.forgotten()
			boundaries, base := l.boundaries(), l.effects(t, l.path)
			l.over()
			n := tally{name: k.name + " orphan"}
			for _, b := range boundaries {
				n.run(t, b, func(t *testing.T) {
					l := s.newCase(t)
					before(l)
					l.start(b)
					l.dies()
					l.start("")
					l.forgotten()
					l.nothingMounted()
					l.compareEffects(base, 1)
					l.over()
				})
			}
			n.print()
			total.add(n)
		})
	}
	total.print()
}

// The object is deleted and created again with the same name and path while no daemon
// runs. The new object takes over the mount, and unmounts it when it is deleted.
func TestCreatedAgain(t *testing.T) {
	for _, k := range kinds {
		for _, policy := range []string{"report", "unmount"} {
			t.Run(k.name+"/"+policy, func(t *testing.T) {
				s := newSet(t, k)
				for _, at := range []string{"", "reconcile/start", "record/saved", "record/saved#2", "orphan/start", "orphan/undone"} {
					l := s.newCase(t)
					mounted(l)
					l.vanish()
					l.create()
					l.flags = []string{"--orphans=" + policy}
					if at != "" {
						l.start(at)
						l.diesOr(isMounted) // not every order of events passes every boundary
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

// Without the policy an orphan is only reported.
func TestOrphanIsReported(t *testing.T) {
	s := newSet(t, kinds[0])
	l := s.newCase(t)
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

// Two ClientMounts have the same volume at the same path: that of l and that of its second.
// The file system stays mounted as long as one of them has the desired state mounted.
var (
	joinPhase = phase{"mount of the second", func(l *testCase) { mounted(l); l.second().create(); l.objects = 2 }, isMounted, true, (*testCase).bothMounted, (*testCase).endBoth, true}

	releasePhase = phase{"release by the first", func(l *testCase) { shared(l); l.Want(l.name, "unmounted") }, isUnmounted, false, func(l *testCase) { l.settledAs(1, 2); l.secondMounted() }, (*testCase).endBoth, true}

	leavePhase = phase{"deletion of the first", func(l *testCase) { shared(l); l.remove() }, isGone, false, func(l *testCase) { l.settledAs(1, 1); l.secondMounted() }, (*testCase).endSecond, true}

	lastPhase = phase{"unmount by the last", func(l *testCase) {
		shared(l)
		l.remove()
		l.start("")
		l.await(isGone)
		l.settledAs(1, 1)
		l.stop()
		l.objects = 1
		l.Want(l.second().name, "unmounted")
	}, isGone, false, func(l *testCase) { l.second().await(isUnmounted); l.nothingMounted() }, (*testCase).endSecond, false}
)

// second returns the case of the other object; the first case starts the daemons.
func (l *testCase) second() *testCase {
	o := *l
	o.name += "-second"
	return &o
}

// shared brings the case to two objects that share a mount, without a running daemon.
func shared(l *testCase) {
	l.create()
	l.start("")
	l.await(isMounted)
	l.second().create()
	l.second().await(isMounted)
	l.stop()
	l.objects = 2
}

func (l *testCase) bothMounted() {
	l.t.Helper()
	l.await(isMounted)
	l.secondMounted()
}

// secondMounted checks that the second object is ready and was not mounted again.
func (l *testCase) secondMounted() {
	l.t.Helper()
	l.second().await(isMounted)
	l.mountedOnce()
}

// endBoth removes both objects, the first one first.
func (l *testCase) endBoth() {
	l.t.Helper()
	l.Want(l.name, "unmounted")
	l.await(isUnmounted)
	l.remove()
	l.await(isGone)
	l.mountedOnce()
	l.endSecond()
}

func (l *testCase) endSecond() {
	l.t.Helper()
	s := l.second()
	l.Want(s.name, "unmounted")
	s.await(isUnmounted)
	l.nothingMounted()
	s.remove()
	s.await(isGone)
	l.over()
}
