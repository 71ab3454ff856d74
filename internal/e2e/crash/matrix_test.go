package crash

import (
	"fmt"
	"testing"
)

// reconcilesAfterRestart is how many attempts a daemon may need to reach the
// goal after a crash.
const reconcilesAfterRestart = 2

// Killed at any boundary of any phase, the daemon is started again and
// converges.
func TestMatrix(t *testing.T) {
	total, converged := 0, 0
	for _, k := range kinds {
		s := newSet(t, k)
		for _, p := range phases {
			boundaries, base := s.dryRun(t, p)
			ok := 0
			for _, b := range boundaries {
				if t.Run(k.name+"/"+p.name+"/"+b, func(t *testing.T) { s.crash(t, p, b, base) }) {
					ok++
				}
			}
			fmt.Printf("crash: %s %s: %d boundaries, %d converged\n", k.name, p.name, len(boundaries), ok)
			total, converged = total+len(boundaries), converged+ok
		}
	}
	fmt.Printf("crash: total: %d boundaries, %d converged\n", total, converged)
	if total < len(kinds)*len(phases)*20 {
		t.Errorf("only %d boundaries: the failpoints are gone", total)
	}
}

// dryRun plays a phase undisturbed. It returns the boundaries that the daemon
// passed up to the goal, and what it did.
func (s *set) dryRun(t *testing.T, p phase) (boundaries []string, base effects) {
	t.Helper()
	t.Run(s.kind.name+"/"+p.name+"/undisturbed", func(t *testing.T) {
		l := s.life(t)
		p.before(l)
		l.forget(t)
		l.start("")
		p.reached(l)
		l.stop() // it may still pass the last ones
		boundaries, base = l.boundaries(), l.effects(t, l.path)
		if n := l.attempts(); n != 1 {
			t.Errorf("undisturbed it took %d attempts", n)
		}
		l.start("")
		p.end(l)
	})
	if len(boundaries) == 0 {
		t.Fatalf("%s %s passes no boundary", s.kind.name, p.name)
	}
	return boundaries, base
}

// crash plays one case.
func (s *set) crash(t *testing.T, p phase, boundary string, base effects) {
	l := s.life(t)
	p.before(l)
	l.forget(t)
	l.start(boundary)
	l.dies()
	if p.turn != nil {
		p.turn(l)
	}
	l.start("")
	p.reached(l)
	if n := l.attempts(); n > reconcilesAfterRestart {
		t.Errorf("the goal was reached after %d attempts: %v", n, l.boundaries())
	}
	did := l.effects(t, l.path)
	for _, text := range append(did.beyond(base, 1), did.missing(base)...) {
		t.Error(text)
	}
	p.end(l)
}
