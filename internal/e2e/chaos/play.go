package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// World is a kind of run: its steps, and how a script is played.
type World struct {
	Name   string // WORLD= of make chaos
	Verbs  map[string]Verb
	Length int // number of steps of a random script

	// Adjust changes a random step; before are the steps before it. nil: nothing.
	Adjust func(random *rand.Rand, before Script, s *Step)

	// Play plays a script in a fresh world. Failed checks are errors of tb. A step that is impossible at
	// its time, for example one for an object that does not exist, does nothing, so that every part of a
	// script is a script.
	Play func(t *testing.T, tb lab.TB, s Script) Counts
}

// The variables of make chaos.
const (
	seedVariable    = "CHAOS_SEED"           // the first seed; empty: the fixed seeds, then fresh ones
	minutesVariable = "CHAOS_MINUTES"        // how long to play scripts; empty: the fixed seeds only
	shrinkVariable  = "CHAOS_SHRINK_MINUTES" // how long to shorten a script that fails
	scriptVariable  = "CHAOS_SCRIPT"         // a file with a script, instead of those in testdata
	bugsVariable    = "CHAOS_BUGS"           // not empty: look for the seeded defects
)

// fixedSeeds is the number of seeds that are always the same, from 1.
const fixedSeeds = 3

// number returns the value of an environment variable.
func number(t *testing.T, name string, otherwise float64) float64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// minutes returns the value of an environment variable in minutes.
func minutes(t *testing.T, name string) time.Duration {
	t.Helper()
	return time.Duration(number(t, name, 0) * float64(time.Minute))
}

// Seeds plays the scripts of seeds. It is the whole test TestSeeds of a world.
func (w World) Seeds(t *testing.T) {
	end := time.Now().Add(minutes(t, minutesVariable))
	seed, fixed := uint64(number(t, seedVariable, 1)), 1
	if os.Getenv(seedVariable) == "" {
		fixed = fixedSeeds
	}
	var total Counts
	for n := 0; n < fixed || time.Now().Before(end); n++ {
		if n == fixedSeeds && fixed == fixedSeeds {
			seed = uint64(time.Now().Unix())
			fmt.Printf("chaos: %s: fresh seeds from %d\n", w.Name, seed)
		}
		s := w.Generate(seed)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			c, err := w.play(t, s)
			total.Add(c)
			t.Log(c)
			if err != nil {
				t.Errorf("%v\n%s", err, w.again(seed))
				w.report(t, s)
			}
		})
		if t.Failed() {
			break
		}
		seed++
	}
	fmt.Printf("chaos: %s: %s\n", w.Name, total)
}

// again returns the command that plays a seed again.
func (w World) again(seed uint64) string {
	return fmt.Sprintf("play it again with: make chaos WORLD=%s SEED=%d MINUTES=0", w.Name, seed)
}

// report shortens a script that fails, and writes it to the test's log.
func (w World) report(t *testing.T, s Script) {
	t.Helper()
	t.Logf("the whole script:\n%s", s)
	limit := minutes(t, shrinkVariable)
	if limit == 0 {
		return
	}
	end := time.Now().Add(limit)
	short := shrink(s, func(s Script) bool {
		if time.Now().After(end) {
			return false
		}
		_, err := w.playQuietly(t, s)
		return err != nil
	})
	t.Logf("the shortened script:\n%s", short)
}

// Scripts plays the scripts in testdata, which are shortened scripts of seeds that have found a defect.
func (w World) Scripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	if path := os.Getenv(scriptVariable); path != "" {
		paths = []string{path}
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.Parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			if _, err := w.play(t, s); err != nil {
				t.Error(err)
			}
		})
	}
}

// foundWithin is how long it may take to find a seeded defect.
const foundWithin = 2 * time.Minute

// Finds checks that the world finds a seeded defect in time. Play must start the program at the path, a
// build that has the defect.
func (w World) Finds(t *testing.T, path string) {
	if os.Getenv(bugsVariable) == "" {
		t.Skip("make chaos runs this test: it takes minutes")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	began, total := time.Now(), Counts{}
	for seed := uint64(0); ; seed++ {
		c, err := w.playQuietly(t, w.Generate(seed))
		total.Add(c)
		if err != nil {
			first, _, _ := strings.Cut(err.Error(), "\n")
			t.Logf("found after %.0f s, seed %d: %s", time.Since(began).Seconds(), seed, first)
		}
		if time.Since(began) > foundWithin {
			t.Fatalf("not found within %v; %s", foundWithin, total)
		}
		if err != nil {
			return
		}
	}
}

// play plays a script. It returns what it has done, and the failed checks.
func (w World) play(t *testing.T, s Script) (c Counts, err error) {
	t.Helper()
	return w.playAs(t, func(tb lab.TB) lab.TB { return tb }, s)
}

// playQuietly is play without logs.
func (w World) playQuietly(t *testing.T, s Script) (c Counts, err error) {
	t.Helper()
	return w.playAs(t, func(tb lab.TB) lab.TB { return quiet{tb} }, s)
}

func (w World) playAs(t *testing.T, as func(lab.TB) lab.TB, s Script) (c Counts, err error) {
	t.Helper()
	err = lab.Do(t.Context(), func(tb lab.TB) { c = w.Play(t, as(tb), s) })
	return c, err
}

// quiet is a test that writes no logs.
type quiet struct{ lab.TB }

func (quiet) Log(...any) {}

// Texts checks that the scripts of seeds survive being written and read, that the same seed has the same
// script, and that all verbs occur. It is the whole test TestTexts of a world.
func (w World) Texts(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(300) {
		s := w.Generate(seed)
		again, err := w.Parse(s.String())
		if err != nil || again.String() != s.String() || w.Generate(seed).String() != s.String() || len(s) != w.Length {
			t.Fatalf("seed %d: %v\n%s\n%s", seed, err, s, again)
		}
		if seed%5 == 0 && w.HasFaults(s) {
			t.Errorf("seed %d has faults:\n%s", seed, s)
		}
		for _, step := range s {
			seen[step.Verb] = true
		}
	}
	for verb := range w.Verbs {
		if !seen[verb] {
			t.Errorf("%s never occurs", verb)
		}
	}
}
