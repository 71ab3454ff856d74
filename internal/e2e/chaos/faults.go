package chaos

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Patience is how long everything may take after the end of all faults, on a busy machine. The daemons
// themselves wait up to 30 s before they connect again.
const Patience = 90 * time.Second

// Terminate stops a daemon like systemd: with SIGTERM, and SIGKILL later. Its exit code must be 0, unless
// it is excused, cannot create a thread, or has started so recently that it may not handle signals yet.
func Terminate(tb lab.TB, p *lab.Process, started time.Time, excused bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	_ = p.Term()
	code, err := p.Wait(ctx)
	early := code == 128+int(unix.SIGTERM) && time.Since(started) < time.Minute
	if err != nil || code != 0 && !early && !excused && !p.Starved() {
		tb.Errorf("after SIGTERM: exit code %d, %v", code, err)
	}
	p.Kill9()
}

// Times are how often a fault happens.
var Times = []string{"1", "2", "5"}

// ServerFaults are the faults of the API server and of the connections to it through a proxy. classes
// are the classes of requests of the program, and "any".
func ServerFaults(classes ...string) map[string]Verb {
	codes := []string{"401", "403", "409", "410", "422", "429", "500", "503"}
	return map[string]Verb{
		"network": {Weight: 6, Fault: true, Args: [][]string{{"refuse", "accept", "reset", "stall", "resume", "down"}}},
		"answer":  {Weight: 6, Fault: true, Args: [][]string{classes, codes, Times}},
		"cut":     {Weight: 3, Fault: true, Args: [][]string{classes, {"1", "100", "1000"}, Times}}, // after so many bytes
		"delay":   {Weight: 3, Fault: true, Args: [][]string{classes, {"100", "1000", "3000"}, Times}},
		"server":  {Weight: 1, Fault: true, Args: [][]string{{"kill", "pause"}}}, // and start or resume it
	}
}

// restarted limits the restart of an API server, on a busy machine.
const restarted = 2 * time.Minute

// DoServerFault does a step with a verb of ServerFaults, and no other step.
func DoServerFault(tb lab.TB, f *fixture.Fixture, s Step) {
	tb.Helper()
	a := append(slices.Clone(s.Args), "", "", "")
	rule := lab.Rule{Class: a[0], Times: Number(a[2])}
	if rule.Class == "any" {
		rule.Class = ""
	}
	switch s.Verb {
	case "network":
		switch a[0] {
		case "refuse":
			f.Proxy.Refuse()
		case "accept":
			f.Must(f.Proxy.Accept())
		case "reset":
			f.Proxy.Reset()
		case "stall", "resume":
			f.Proxy.HalfOpen(a[0] == "stall")
		case "down":
			f.Proxy.Down(true)
		}
	case "answer":
		rule.Code, rule.ErrorEvent = Number(a[1]), a[1] == "410"
		f.Proxy.Set(rule)
	case "cut":
		rule.CutAfter = Number(a[1])
		f.Proxy.Set(rule)
	case "delay":
		rule.Delay = time.Duration(Number(a[1])) * time.Millisecond
		f.Proxy.Set(rule)
	case "server":
		if a[0] == "pause" {
			f.Must(f.Cluster.Pause())
			time.Sleep(2 * time.Second) // the pause itself
			f.Must(f.Cluster.Resume())
			return
		}
		before := f.Cluster.Address()
		f.Must(f.Cluster.Kill())
		ctx, cancel := context.WithTimeout(tb.Context(), restarted)
		defer cancel()
		f.Must(f.Cluster.Restart(ctx))
		if after := f.Cluster.Address(); after != before { // the proxy would not find it
			tb.Fatalf("the API server has moved from %s to %s", before, after)
		}
	}
}

// DirectoryFaults are the arguments of LimitDirectory.
var DirectoryFaults = []string{"full", "read-only", "usual"}

// LimitDirectory fills a directory, which is a tmpfs of this size, or makes it read-only. "usual" ends
// that.
func LimitDirectory(tb lab.TB, dir, size, how string) {
	tb.Helper()
	fill := filepath.Join(dir, "chaos-fill")
	err := error(nil)
	switch how {
	case "full":
		f, err := os.OpenFile(fill, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return // it is read-only, or has no place for a file
		}
		for _, part := range []int{4096, 1} {
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, part))
			}
		}
		f.Close()
	case "read-only":
		if err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); errors.Is(err, unix.EBUSY) {
			err = nil // a program is writing a file there
		}
	case "usual":
		if err = unix.Mount("", dir, "", unix.MS_REMOUNT, "size="+size); err == nil {
			if err = os.Remove(fill); errors.Is(err, os.ErrNotExist) {
				err = nil
			}
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Join joins sets of verbs.
func Join(sets ...map[string]Verb) map[string]Verb {
	all := map[string]Verb{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// Number returns an argument as a number, or 0.
func Number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
