package crash

import (
	"fmt"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// reconcilesAfterRestart is how many attempts for each object a daemon may need to
// reach the goal after a crash.
const reconcilesAfterRestart = 2

// Killed at any boundary of any phase, the daemon is started again and
// converges.
func TestMatrix(t *testing.T) {
	total := tally{name: "total"}
	for _, k := range append(kinds[:len(kinds):len(kinds)], hostName) {
		t.Run(k.name, func(t *testing.T) {
			s := newSet(t, k)
			for _, p := range k.phases() {
				t.Run(p.name, func(t *testing.T) {
					boundaries, base := s.dryRun(t, p)
					n := tally{name: k.name + " " + p.name}
					for _, b := range boundaries {
						n.run(t, b, func(t *testing.T) { s.crash(t, p, b, base) })
					}
					n.print()
					total.add(n)
				})
			}
		})
	}
	total.print()
}

// dryRun runs a phase undisturbed. It returns the boundaries that the daemon
// passed up to the goal, and what it did.
func (s *set) dryRun(t *testing.T, p phase) (boundaries []string, base effects) {
	t.Helper()
	l := s.life(t)
	p.before(l)
	l.forget(t)
	l.start("")
	p.reach(l)
	l.stop() // it may still pass the last ones
	boundaries, base = l.boundaries(), l.effects(t, l.path)
	if n := l.attempts(); n != l.objects {
		t.Errorf("undisturbed it took %d attempts for %d objects", n, l.objects)
	}
	if len(boundaries) < p.least() {
		t.Fatalf("%s %s passes no boundaries but %v: the failpoints are gone", s.kind.name, p.name, boundaries)
	}
	l.start("")
	p.end(l)
	return boundaries, base
}

// crash runs one case: killed at the boundary, started again.
func (s *set) crash(t *testing.T, p phase, boundary string, base effects) {
	l := s.life(t)
	p.before(l)
	l.forget(t)
	l.start(boundary)
	l.dies()
	l.start("")
	p.reach(l)
	l.judge(base, 1)
	p.end(l)
}

// judge compares what was done, in spite of so many crashes, with what would
// have been done without.
func (l *life) judge(base effects, crashes int) {
	l.t.Helper()
	if n := l.attempts(); n > reconcilesAfterRestart*l.objects {
		l.t.Errorf("the goal was reached after %d attempts: %v", n, l.boundaries())
	}
	did := l.effects(l.t, l.path)
	for _, text := range append(did.beyond(base, crashes, l.objects), did.missing(base)...) {
		l.t.Error(text)
	}
}

// tally counts cases of one sort.
type tally struct {
	name             string
	cases, converged int
}

func (n *tally) run(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	n.cases++
	if t.Run(name, f) {
		n.converged++
	}
}

func (n *tally) add(o tally) { n.cases += o.cases; n.converged += o.converged }

func (n *tally) print() {
	fmt.Printf("crash: %s: %d boundaries, %d converged\n", n.name, n.cases, n.converged)
}

// A phase is the part of a life in which the daemon is killed.
type phase struct {
	name string
	// before brings the life to the point where the phase begins. No daemon
	// runs after it: the one that is started next meets the wish at once, so
	// that all boundaries it passes belong to the phase.
	before func(*life)
	// goal tells whether the object is as wanted; nil is one that is gone.
	goal   func(lab.Object) bool
	mounts bool // the goal is to be mounted
	// check looks at the machine then, and end takes all down.
	check, end func(*life)
	// short phases run no step of a plan.
	short bool
}

// least is how many boundaries a phase must have, so that failpoints cannot
// vanish unseen.
func (p phase) least() int {
	if p.short {
		return 5
	}
	return 20
}

var (
	isMounted   = func(o lab.Object) bool { return o != nil && o.Ready("mounted") }
	isUnmounted = func(o lab.Object) bool { return o != nil && o.Ready("unmounted") }
	isGone      = func(o lab.Object) bool { return o == nil }
)

// mounted lives up to a mounted file system and leaves no daemon.
func mounted(l *life) {
	l.create()
	l.start("")
	l.await(isMounted)
	l.kill()
}

var (
	mountPhase = phase{"mount", (*life).create, isMounted, true, (*life).mountedOnce, (*life).end, false}

	unmountPhase = phase{"unmount", func(l *life) { mounted(l); l.Want(l.name, "unmounted") }, isUnmounted, false, (*life).nothingMounted, (*life).end, false}

	deletePhase = phase{"delete", func(l *life) { mounted(l); l.remove() }, isGone, false, (*life).nothingMounted, (*life).over, false}

	// The mount path changes while the file system is mounted: the old mount
	// has to go and the new one to come.
	movePhase = phase{"move", func(l *life) { mounted(l); l.move() }, isMounted, true, (*life).mountedOnce, (*life).end, false}

	phases = []phase{mountPhase, unmountPhase, deletePhase}
)

// phases of the matrix: those that every type has, and for one with a volume and
// one without also a move and some with two objects.
func (k kind) phases() []phase {
	switch k.name {
	case "gfs2":
		return slices.Concat(phases, []phase{movePhase, joinPhase, releasePhase, lastPhase})
	case "lustre":
		return slices.Concat(phases, []phase{movePhase, leavePhase, lastPhase})
	case hostName.name:
		return []phase{mountPhase}
	}
	return phases
}

// reach waits for the phase's goal and checks the machine.
func (p phase) reach(l *life) {
	l.t.Helper()
	if p.mounts {
		l.settled()
	}
	l.await(p.goal)
	p.check(l)
}

// The API server is killed together with the daemon. The daemon that follows
// starts before the server is back and finds everything as it was.
func TestServerDiesToo(t *testing.T) {
	s := newSet(t, kinds[0])
	for _, tt := range []struct {
		phase    phase
		boundary string
	}{
		{mountPhase, "mount/0/mount/mounted"},
		{unmountPhase, "status/write"},
		{deletePhase, "finalizers/write"},
	} {
		t.Run(tt.phase.name, func(t *testing.T) {
			l := s.life(t)
			tt.phase.before(l)
			l.start(tt.boundary)
			l.dies()
			if err := l.Cluster.Kill(); err != nil {
				t.Fatal(err)
			}
			l.start("")
			if err := l.Cluster.Restart(l.Context(2 * patience)); err != nil {
				t.Fatal(err)
			}
			tt.phase.reach(l)
			if n := l.attempts(); n > reconcilesAfterRestart {
				t.Errorf("the goal was reached after %d attempts", n)
			}
			tt.phase.end(l)
		})
	}
}
