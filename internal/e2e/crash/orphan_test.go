package crash

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// vanish takes the object away although it has our finalizer, as an
// administrator may do in an emergency.
func (l *life) vanish() {
	l.t.Helper()
	l.Must(l.Cluster.DropFinalizers(l.Context(patience), "ClientMount", l.Node, l.name))
	l.remove()
	l.await(isGone)
}

// forgotten waits until no record is left.
func (l *life) forgotten() {
	l.t.Helper()
	l.Ready(l.daemons[len(l.daemons)-1])
	wait.Until(l.t, "the removal of all records", func() bool {
		records, err := filepath.Glob(filepath.Join(l.Runtime, "mounts", "*"))
		return err == nil && len(records) == 0
	})
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
						l.start(at)
						l.diesOr(isMounted) // not every way passes every boundary
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

// Two ClientMounts have the same volume at the same path: l itself and its second.
// The mount is there as long as one of them wants it.
var (
	joinPhase = phase{"mount of the second", func(l *life) { mounted(l); l.second().create(); l.objects = 2 }, isMounted, true, (*life).bothMounted, (*life).endBoth, true}

	releasePhase = phase{"release by the first", func(l *life) { shared(l); l.Want(l.name, "unmounted") }, isUnmounted, false, func(l *life) { l.settledAs(1, 2); l.secondMounted() }, (*life).endBoth, true}

	leavePhase = phase{"deletion of the first", func(l *life) { shared(l); l.remove() }, isGone, false, func(l *life) { l.settledAs(1, 1); l.secondMounted() }, (*life).endSecond, true}

	lastPhase = phase{"unmount by the last", func(l *life) {
		shared(l)
		l.remove()
		l.start("")
		l.await(isGone)
		l.settledAs(1, 1)
		l.kill()
		l.objects = 1
		l.Want(l.second().name, "unmounted")
	}, isGone, false, func(l *life) { l.second().await(isUnmounted); l.nothingMounted() }, (*life).endSecond, false}
)

// second is the life of the other object; daemons are the first one's business.
func (l *life) second() *life {
	o := *l
	o.name += "-second"
	return &o
}

// shared lives up to two objects that share a mount, and leaves no daemon.
func shared(l *life) {
	l.create()
	l.start("")
	l.await(isMounted)
	l.second().create()
	l.second().await(isMounted)
	l.kill()
	l.objects = 2
}

func (l *life) bothMounted() {
	l.t.Helper()
	l.await(isMounted)
	l.secondMounted()
}

// secondMounted checks that the second is ready now, and was not made so again.
func (l *life) secondMounted() {
	l.t.Helper()
	l.second().await(isMounted)
	l.mountedOnce()
}

// endBoth takes both down, the first one first.
func (l *life) endBoth() {
	l.t.Helper()
	l.Want(l.name, "unmounted")
	l.await(isUnmounted)
	l.remove()
	l.await(isGone)
	l.mountedOnce()
	l.endSecond()
}

func (l *life) endSecond() {
	l.t.Helper()
	s := l.second()
	l.Want(s.name, "unmounted")
	s.await(isUnmounted)
	l.nothingMounted()
	s.remove()
	s.await(isGone)
	l.over()
}
