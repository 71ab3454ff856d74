// Package chaos plays random operations and faults against real programs. Each world, a test package
// below this one, has one kind of them, and checks from the kernel and from a recorded history what must
// hold at every moment. It does not trust what the programs report about themselves.
//
// A run is a script: one step in each line. The script of a seed is always the same; what happens at
// the same time is not. When a check fails, the script is shortened as long as it still fails, so that
// it can become a regression test in the testdata of its world.
//
// It must not know how the programs work.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Step is one operation or fault: a verb and its arguments.
type Step struct {
	Verb string
	Args []string
}

func (s Step) String() string { return strings.Join(append([]string{s.Verb}, s.Args...), " ") }

// Script is a sequence of steps.
type Script []Step

func (s Script) String() string {
	var b strings.Builder
	for _, step := range s {
		b.WriteString(step.String() + "\n")
	}
	return b.String()
}

// Verb describes a verb.
type Verb struct {
	Weight int        // how often it occurs in random scripts
	Fault  bool       // some scripts have none
	Args   [][]string // the possible values of each argument
}

// Parse reads a script. Empty lines and lines that start with # are ignored.
func (w World) Parse(text string) (s Script, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		v, known := w.Verbs[f[0]]
		if !known || len(v.Args) != len(f)-1 {
			return nil, fmt.Errorf("line %d: %q is not a step", n, strings.TrimSpace(line))
		}
		s = append(s, Step{f[0], f[1:]})
	}
	return s, nil
}

// Generate returns the script of a seed. Each fifth script has no faults.
func (w World) Generate(seed uint64) (s Script) {
	random := rand.New(rand.NewPCG(seed, 16))
	var names []string
	for name, v := range w.Verbs {
		for range v.Weight {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for len(s) < w.Length {
		step := Step{Verb: names[random.IntN(len(names))]}
		v := w.Verbs[step.Verb]
		for _, values := range v.Args {
			step.Args = append(step.Args, values[random.IntN(len(values))])
		}
		if w.Adjust != nil {
			w.Adjust(random, s, &step)
		}
		if seed%5 != 0 || !v.Fault {
			s = append(s, step)
		}
	}
	return s
}

// HasFaults reports whether the script has faults.
func (w World) HasFaults(s Script) bool {
	return slices.ContainsFunc(s, func(step Step) bool { return w.Verbs[step.Verb].Fault })
}

// shrink removes steps as long as fails returns true for what is left.
func shrink(s Script, fails func(Script) bool) Script {
	for size := len(s) / 2; size > 0; {
		removed := false
		for at := 0; at+size <= len(s); {
			less := slices.Concat(s[:at], s[at+size:])
			if fails(less) {
				s, removed = less, true
			} else {
				at += size
			}
		}
		if !removed || size > len(s) {
			size /= 2
		}
	}
	return s
}

// Counts is what runs have done.
type Counts struct {
	Scripts, Operations, Faults, Kills int
	Checks                             int           // of the invariants
	Slowest                            time.Duration // from the end of the faults until everything was as it should be
}

// Add adds the counts of other runs.
func (c *Counts) Add(o Counts) {
	c.Scripts += o.Scripts
	c.Operations += o.Operations
	c.Faults += o.Faults
	c.Kills += o.Kills
	c.Checks += o.Checks
	c.Slowest = max(c.Slowest, o.Slowest)
}

func (c Counts) String() string {
	return fmt.Sprintf("%d scripts, %d operations, %d faults, %d of them kills, %d checks; converged within %.1f s",
		c.Scripts, c.Operations, c.Faults, c.Kills, c.Checks, c.Slowest.Seconds())
}
