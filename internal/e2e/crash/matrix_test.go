package crash

import (
	"fmt"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// reconcilesAfterRestart is the number of attempts per object that a daemon may need to
// reach the goal after a crash.
const reconcilesAfterRestart = 2

// The daemon is killed at each boundary of each phase, and the next daemon converges.
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

// dryRun runs a phase undisturbed. It returns the boundaries that the daemon passes before
// it reaches the goal, and its effects.
func (s *set) dryRun(t *testing.T, p phase) (boundaries []string, base effects) {
	t.Helper()
	l := s.newCase(t)
	p.before(l)
	l.forget(t)
	l.start("")
	p.reach(l)
	l.stop() // it may still pass the last boundaries
	boundaries, base = l.boundaries(), l.effects(t, l.path)
	if n := l.attempts(); n != l.objects {
		t.Errorf("the undisturbed run took %d attempts for %d objects", n, l.objects)
	}
	if len(boundaries) < p.least() {
		t.Fatalf("%s %s passes only the boundaries %v: failpoints are missing", s.kind.name, p.name, boundaries)
	}
	l.start("")
	p.end(l)
	return boundaries, base
}

// crash runs one case: killed at the boundary, started again.
func (s *set) crash(t *testing.T, p phase, boundary string, base effects) {
	l := s.newCase(t)
	p.before(l)
	l.forget(t)
	l.start(boundary)
	l.dies()
	l.start("")
	p.reach(l)
	l.compareEffects(base, 1)
	p.end(l)
}

// compareEffects compares the effects after that many crashes with those of an undisturbed run.
func (l *testCase) compareEffects(base effects, crashes int) {
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

// A phase is the part of a case during which the daemon is killed.
type phase struct {
	name string
	// before brings the case to the start of the phase. No daemon runs after it, so the
	// next daemon finds the desired state at its start, and all boundaries that it passes
	// belong to the phase.
	before func(*testCase)
	// goal reports whether the object has the desired state; nil is a deleted object.
	goal   func(lab.Object) bool
	mounts bool // the goal is that the object is mounted
	// check checks the machine after that, and end removes everything.
	check, end func(*testCase)
	// short phases run no step of a plan.
	short bool
}

// least returns the minimum number of boundaries of a phase, so that missing failpoints are
// detected.
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

// mounted brings the case to a mounted file system, without a running daemon. The daemon is stopped
// and not killed, so that all cases of a phase start with the same record: the last save is after
// the status has been written.
func mounted(l *testCase) {
	l.t.Helper()
	l.create()
	l.start("")
	l.await(isMounted)
	l.stop()
}

var (
	mountPhase = phase{"mount", (*testCase).create, isMounted, true, (*testCase).mountedOnce, (*testCase).end, false}

	unmountPhase = phase{"unmount", func(l *testCase) { mounted(l); l.Want(l.name, "unmounted") }, isUnmounted, false, (*testCase).nothingMounted, (*testCase).end, false}

	deletePhase = phase{"delete", func(l *testCase) { mounted(l); l.remove() }, isGone, false, (*testCase).nothingMounted, (*testCase).over, false}

	// The mount path changes while the file system is mounted: the old mount must be
	// unmounted, and the new one mounted.
	movePhase = phase{"move", func(l *testCase) { mounted(l); l.move() }, isMounted, true, (*testCase).mountedOnce, (*testCase).end, false}

	phases = []phase{mountPhase, unmountPhase, deletePhase}
)

// phases returns the phases of the matrix: those of every type, and for one type with a
// volume and one without also a move and some with two objects.
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

// reach waits for the goal of the phase and checks the machine.
func (p phase) reach(l *testCase) {
	l.t.Helper()
	if p.mounts {
		l.settled()
	}
	l.await(p.goal)
	p.check(l)
}

// The API server is killed together with the daemon. The next daemon starts before the
// server is back and changes nothing until then.
func TestServerIsKilledToo(t *testing.T) {
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
			l := s.newCase(t)
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
