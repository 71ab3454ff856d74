package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// step is one operation or fault: a verb and its arguments.
type step struct {
	verb string
	args []string
}

func (s step) String() string { return strings.Join(append([]string{s.verb}, s.args...), " ") }

// script is a sequence of steps.
type script []step

func (s script) String() string {
	var b strings.Builder
	for _, st := range s {
		b.WriteString(st.String() + "\n")
	}
	return b.String()
}

// parse reads a script. Empty lines and lines that start with # are ignored.
func parse(text string) (s script, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		v, known := verbs[f[0]]
		if !known || len(v.args) != len(f)-1 {
			return nil, fmt.Errorf("line %d: %q is not a step", n, strings.TrimSpace(line))
		}
		s = append(s, step{f[0], f[1:]})
	}
	return s, nil
}

// The arguments of steps.
var (
	objects = []string{"a", "b", "c", "d"}
	volumes = []string{"xfs", "xfs-2", "gfs2", "raw", "lustre"}
	paths   = []string{"p", "q", "r", "p/inner", "q/inner"}
	states  = []string{"mounted", "unmounted"}
	tools   = []string{"lvs", "vgs", "lvchange", "vgchange", "nvme", "mount", "umount", "mount.lustre"}
	holds   = []string{"cwd", "open", "mmap", "nested", "namespace"}
	classes = []string{"any", "list", "watch", "get", "patch-status", "patch-finalizer"}
	codes   = []string{"401", "403", "409", "410", "422", "429", "500", "503"}
	times   = []string{"1", "2", "5"}
	millis  = []string{"10", "50", "100", "200", "500", "1000", "2000"}
	harms   = []string{"fails", "fails-after", "hangs", "floods", "garbage", "slow", "killed"}
)

// verb is the weight of a verb in random scripts, and the possible values of its arguments.
type verb struct {
	weight int
	fault  bool
	args   [][]string
}

// verbs are all steps. A step that is impossible at its time, such as one for an object that does not
// exist, does nothing, so that every part of a script is a script.
var verbs = map[string]verb{
	"create":  {30, false, [][]string{objects, volumes, paths}},
	"want":    {25, false, [][]string{objects, states}},
	"move":    {3, false, [][]string{objects, paths}},
	"delete":  {12, false, [][]string{objects}},
	"strip":   {2, false, [][]string{objects}}, // removes the finalizers
	"profile": {3, false, [][]string{{"change", "delete", "create"}}},
	"wait":    {40, false, [][]string{millis}}, // milliseconds

	"hold":       {4, true, [][]string{objects, holds}}, // a process or mount keeps the mount of the object busy
	"release":    {4, false, nil},
	"foreign":    {2, true, [][]string{paths}}, // another program mounts there
	"lose":       {2, true, [][]string{volumes}},
	"return":     {3, false, [][]string{volumes}},
	"tool":       {10, true, [][]string{tools, harms, times}},
	"kill":       {4, true, nil},
	"kill-alone": {2, true, nil}, // commands of the daemon keep running
	"term":       {2, true, nil},
	"stop":       {2, true, nil},
	"cont":       {2, false, nil},
	"start":      {30, false, [][]string{{"usual", "usual", "usual", "nofile=30", "nofile=64", "busy=kill"}}},
	"network":    {6, true, [][]string{{"refuse", "accept", "reset", "stall", "resume", "down"}}},
	"answer":     {6, true, [][]string{classes, codes, times}},
	"cut":        {3, true, [][]string{classes, {"1", "100", "1000"}, times}},
	"delay":      {3, true, [][]string{classes, {"100", "1000", "3000"}, times}},
	"server":     {1, true, [][]string{{"kill", "pause"}}}, // and start or resume it
	"runtime":    {3, true, [][]string{{"full", "read-only", "usual"}}},
	"clear":      {4, false, nil}, // ends the faults of tools, connections and the runtime directory
}

// generate returns the script of a seed.
func generate(seed uint64, n int) (s script) {
	random := rand.New(rand.NewPCG(seed, 16))
	var names []string
	for name, v := range verbs {
		for range v.weight {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	calm := seed%5 == 0 // no faults
	var created []string
	for len(s) < n {
		st := step{verb: names[random.IntN(len(names))]}
		v := verbs[st.verb]
		for _, values := range v.args {
			st.args = append(st.args, values[random.IntN(len(values))])
		}
		if st.verb == "create" {
			if created != nil && random.IntN(4) == 0 { // two objects with one mount
				copy(st.args[1:], created)
			}
			created = st.args[1:]
		}
		if !calm || !v.fault {
			s = append(s, st)
		}
	}
	return s
}

// shrink removes steps as long as fails returns true for what is left.
func shrink(s script, fails func(script) bool) script {
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

// counts is what a run has done.
type counts struct {
	scripts, operations, faults, kills int
	checks                             int     // of the mount table and of published states
	slowest                            float64 // seconds from the end of the faults until everything was as it should be
}

func (c *counts) add(o counts) {
	c.scripts += o.scripts
	c.operations += o.operations
	c.faults += o.faults
	c.kills += o.kills
	c.checks += o.checks
	c.slowest = max(c.slowest, o.slowest)
}

func (c counts) String() string {
	return fmt.Sprintf("%d scripts, %d operations, %d faults, %d of them kills, %d checks; converged within %.1f s",
		c.scripts, c.operations, c.faults, c.kills, c.checks, c.slowest)
}
