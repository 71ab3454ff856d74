package crash

import (
	"fmt"
	"testing"
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

// dryRun plays a phase undisturbed. It returns the boundaries that the daemon
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

// crash plays one case: killed at the boundary, started again.
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
