package crash

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// The desired state changes while no daemon runs, after a crash at each boundary.
func TestChangedDesiredState(t *testing.T) {
	xfs, gfs2, lustre := kinds[0], kinds[2], kinds[3]
	total := tally{name: "changed desired state total"}
	for _, turn := range []struct {
		name  string
		kinds []kind
		phase phase // interrupted phase
		turn  func(*testCase)
		to    phase // following phase
	}{
		{"unmounting, then mounted again", []kind{gfs2}, unmountPhase, func(l *testCase) { l.Want(l.name, "mounted") }, mountPhase},
		{"mounting, then unmounted", []kind{xfs}, mountPhase, func(l *testCase) { l.Want(l.name, "unmounted") }, unmountPhase},
		{"mounting, then deleted", []kind{lustre}, mountPhase, (*testCase).remove, deletePhase},
		{"unmounting, then deleted", []kind{xfs}, unmountPhase, (*testCase).remove, deletePhase},
	} {
		for _, k := range turn.kinds {
			s := newSet(t, k)
			boundaries, _ := s.dryRun(t, turn.phase)
			n := tally{name: k.name + " " + turn.name}
			for _, b := range boundaries {
				n.run(t, k.name+"/"+turn.name+"/"+b, func(t *testing.T) {
					l := s.newCase(t)
					turn.phase.before(l)
					l.start(b)
					l.dies()
					turn.turn(l)
					l.start("")
					turn.to.reach(l)
					if n := l.attempts(); n > reconcilesAfterRestart {
						t.Errorf("the goal was reached after %d attempts", n)
					}
					turn.to.end(l)
				})
			}
			n.print()
			total.add(n)
		}
	}
	total.print()
}

// The storage profile is deleted after the crash: the record is sufficient, including the
// hooks.
func TestProfileGone(t *testing.T) {
	total := tally{name: "profile gone total"}
	for _, c := range []struct {
		kind   kind
		phases []phase
	}{
		{kinds[0], []phase{deletePhase}}, {kinds[2], []phase{unmountPhase}}, {kinds[3], []phase{unmountPhase, deletePhase}},
	} {
		k, s := c.kind, newSet(t, c.kind)
		for _, p := range c.phases {
			boundaries, base := s.dryRun(t, p)
			n := tally{name: k.name + " " + p.name + ", profile gone"}
			for _, b := range boundaries {
				n.run(t, k.name+"/"+p.name+"/"+b, func(t *testing.T) {
					l := s.newCase(t)
					p.before(l)
					l.forget(t)
					l.start(b)
					l.dies()
					if err := l.Cluster.Delete(l.Context(patience), "NnfStorageProfile", "default", l.Profile); err != nil {
						t.Fatal(err)
					}
					defer l.profile()
					l.start("")
					p.reach(l)
					l.compareEffects(base, 1)
					p.end(l)
				})
			}
			n.print()
			total.add(n)
		}
	}
	total.print()
}

// The daemon is killed several times while it recovers.
func TestRepeatedCrashes(t *testing.T) {
	const cases, more = 3, 2
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CRASH_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("repeat with CRASH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	total := tally{name: "repeated crashes (CRASH_SEED=" + strconv.FormatUint(seed, 10) + ")"}
	for _, k := range kinds {
		s := newSet(t, k)
		for _, p := range phases {
			boundaries, base := s.dryRun(t, p)
			for i := range cases {
				first := boundaries[random.IntN(len(boundaries))]
				then := make([]int, more)
				for j := range then {
					then[j] = 1 + random.IntN(len(boundaries))
				}
				total.run(t, k.name+"/"+p.name+"/"+strconv.Itoa(i), func(t *testing.T) {
					t.Logf("first at %s, then at the boundaries number %v", first, then)
					l := s.newCase(t)
					p.before(l)
					l.forget(t)
					l.start(first)
					l.dies()
					for _, n := range then {
						l.start("@" + strconv.Itoa(n))
						l.diesOr(p.goal) // it may reach the goal before it passes that many boundaries
					}
					l.start("")
					p.reach(l)
					l.compareEffects(base, 1+more)
					p.end(l)
				})
			}
		}
	}
	total.print()
}
