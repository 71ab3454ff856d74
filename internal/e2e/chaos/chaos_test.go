// Package chaos runs random operations and faults against real programs, and checks from the kernel and
// from a recorded history what must hold at every moment. It does not trust what the programs report
// about themselves.
//
// A run is a script: one step in each line. The script of a seed is always the same; what happens at
// the same time is not. When a check fails, the script is shortened as long as it still fails, so that
// it can become a regression test in testdata.
//
// It must not know how the daemons work.
package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(fixture.Main(m)) }

// length is the number of steps of a script.
const length = 60

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

// The variables of make chaos.
const (
	minutesVariable = "CHAOS_MINUTES"        // how long to play scripts of further seeds
	seedVariable    = "CHAOS_SEED"           // the first seed
	shrinkVariable  = "CHAOS_SHRINK_MINUTES" // how long to shorten a script that fails
	scriptVariable  = "CHAOS_SCRIPT"         // a file with a script, instead of testdata
)

// fixedSeeds is the number of seeds that TestMounts plays without variables, from 1.
const fixedSeeds = 3

// TestMounts plays the scripts of seeds in the world "mounts".
func TestMounts(t *testing.T) {
	end := time.Now().Add(time.Duration(number(t, minutesVariable, 0) * float64(time.Minute)))
	seed := uint64(number(t, seedVariable, 1))
	var total counts
	for n := uint64(0); n < fixedSeeds || time.Now().Before(end); n++ {
		s := generate(seed+n, length)
		t.Run(fmt.Sprintf("seed %d", seed+n), func(t *testing.T) {
			c, err := play(t, s)
			total.add(c)
			t.Log(c)
			if err != nil {
				t.Errorf("%v", err)
				report(t, s)
			}
		})
		if t.Failed() {
			break
		}
	}
	fmt.Printf("chaos: mounts, from seed %d: %s\n", seed, total)
}

// foundWithin is how long it may take to find a seeded defect.
const foundWithin = 2 * time.Minute

// A build with a seeded defect is found in time, for each of the defects.
func TestBugs(t *testing.T) {
	if os.Getenv(minutesVariable) == "" {
		t.Skip("make chaos runs this test: it takes minutes")
	}
	path := filepath.Join(fixture.Root(t), "bin", "clientmountd-chaosbug")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make bin/clientmountd-chaosbug", err)
	}
	t.Setenv("CLIENTMOUNTD_FAILPOINTS", path)
	for _, bug := range []string{"mount-again", "failed-unmount", "finalizer-first"} {
		t.Run(bug, func(t *testing.T) {
			began, total := time.Now(), counts{}
			for seed := uint64(0); ; seed++ {
				c, err := playQuietly(t, generate(seed, length), "CLIENTMOUNTD_BUG="+bug)
				total.add(c)
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
		})
	}
}

// TestScripts plays the scripts in testdata: shortened scripts of seeds that have found a defect.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/mounts/*.txt")
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
		s, err := parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			if _, err := play(t, s); err != nil {
				t.Error(err)
			}
		})
	}
}

// report shortens a script that fails, and writes it to the test's log.
func report(t *testing.T, s script) {
	t.Helper()
	t.Logf("the whole script:\n%s", s)
	minutes := number(t, shrinkVariable, 0)
	if minutes == 0 {
		return
	}
	end := time.Now().Add(time.Duration(minutes * float64(time.Minute)))
	short := shrink(s, func(s script) bool {
		if time.Now().After(end) {
			return false
		}
		_, err := playQuietly(t, s)
		return err != nil
	})
	t.Logf("the shortened script:\n%s", short)
}

// play runs a script in a world of its own, with variables in the environment of the daemon. It returns
// what it has done, and the failed checks.
func play(t *testing.T, s script, environment ...string) (c counts, err error) {
	t.Helper()
	return playAs(t, func(tb lab.TB) lab.TB { return tb }, s, environment...)
}

// playQuietly is play without logs.
func playQuietly(t *testing.T, s script, environment ...string) (c counts, err error) {
	t.Helper()
	return playAs(t, func(tb lab.TB) lab.TB { return quiet{tb} }, s, environment...)
}

func playAs(t *testing.T, as func(lab.TB) lab.TB, s script, environment ...string) (c counts, err error) {
	t.Helper()
	base := fixture.New(t)
	err = lab.Do(t.Context(), func(tb lab.TB) {
		w := newWorld(as(tb), base)
		w.environment = environment
		defer func() { c = w.counts }()
		w.run(s)
	})
	return c, err
}

// quiet is a test that writes no logs.
type quiet struct{ lab.TB }

func (quiet) Log(...any) {}

// Scripts survive being written and read, and the same seed has the same script.
func TestText(t *testing.T) {
	for seed := range uint64(200) {
		s := generate(seed, length)
		again, err := parse(s.String())
		if err != nil || again.String() != s.String() || generate(seed, length).String() != s.String() || len(s) != length {
			t.Fatalf("seed %d: %v\n%s\n%s", seed, err, s, again)
		}
	}
	for _, bad := range []string{"fly", "create", "wait", "kill now"} {
		if _, err := parse(bad); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// All verbs occur in scripts.
func TestVerbs(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		for _, st := range generate(seed, length) {
			seen[st.verb] = true
		}
	}
	for verb := range verbs {
		if !seen[verb] {
			t.Errorf("%s never occurs", verb)
		}
	}
}

// Only the steps that are needed for the failure are left.
func TestShrink(t *testing.T) {
	s := generate(1, length)
	s[7], s[31], s[50] = step{"kill", nil}, step{"lose", []string{"gfs2"}}, step{"kill", nil}
	runs := 0
	short := shrink(s, func(s script) bool {
		runs++
		kills, lost := 0, false
		for _, st := range s {
			lost = lost || st.String() == "lose gfs2"
			if st.verb == "kill" && lost {
				kills++
			}
		}
		return kills > 0
	})
	if short.String() != "lose gfs2\nkill\n" {
		t.Errorf("%d runs:\n%s", runs, short)
	}
}
