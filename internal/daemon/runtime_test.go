package daemon

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// keepLimits restores the limits of the test process at the end of the test.
func keepLimits(t *testing.T) {
	mem, procs := debug.SetMemoryLimit(-1), runtime.GOMAXPROCS(0)
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	t.Cleanup(func() {
		debug.SetMemoryLimit(mem)
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(procs)
	})
}

// inForce returns the limits in effect.
func inForce() runtimeLimits {
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	return runtimeLimits{MemLimit: debug.SetMemoryLimit(-1), GOGC: percent, MaxProcs: runtime.GOMAXPROCS(0)}
}

func TestApplyRuntime(t *testing.T) {
	before := runtimeLimits{MemLimit: 1 << 30, GOGC: 77, MaxProcs: 2}
	for name, c := range map[string]struct {
		o    RuntimeOptions
		env  []string
		want runtimeLimits
	}{
		"nothing set": {RuntimeOptions{}, nil, before},
		"all set": {RuntimeOptions{MemLimit: 24 << 20, GOGC: 50, MaxProcs: 1}, nil,
			runtimeLimits{24 << 20, 50, 1}},
		"collector off": {RuntimeOptions{GOGC: -1}, nil, runtimeLimits{1 << 30, -1, 2}},
		"environment overrides all": {RuntimeOptions{MemLimit: 24 << 20, GOGC: -1, MaxProcs: 1},
			[]string{"GOMEMLIMIT", "1GiB", "GOGC", "77", "GOMAXPROCS", "2"}, before},
		"environment overrides one": {RuntimeOptions{MemLimit: 24 << 20, GOGC: -1, MaxProcs: 1},
			[]string{"GOGC", "77"}, runtimeLimits{24 << 20, 77, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			keepLimits(t)
			debug.SetMemoryLimit(before.MemLimit)
			debug.SetGCPercent(before.GOGC)
			runtime.GOMAXPROCS(before.MaxProcs)
			c.o.getenv = environ(c.env...)
			got, err := applyRuntime(c.o)
			if err != nil || got != c.want {
				t.Errorf("returned %+v, %v; want %+v", got, err, c.want)
			}
			if real := inForce(); real != c.want {
				t.Errorf("in effect %+v, want %+v", real, c.want)
			}
		})
	}
}

// A process that started with one processor gets the requested number, or the default.
func TestTakenProcs(t *testing.T) {
	machine := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(machine) })
	none := func(string) string { return "" }
	for _, c := range []struct {
		wanted, want int
		taken        bool
	}{{0, runtime.NumCPU(), true}, {0, 1, false}, {1, 1, true}, {3, 3, true}} {
		runtime.GOMAXPROCS(1)
		in, err := applyRuntime(RuntimeOptions{MaxProcs: c.wanted, TakenProcs: c.taken, getenv: none})
		if err != nil || in.MaxProcs != c.want {
			t.Errorf("%+v: got %d processors (%v)", c, in.MaxProcs, err)
		}
	}
}

func TestApplyRuntimeRefuses(t *testing.T) {
	keepLimits(t)
	before := inForce()
	for _, o := range []RuntimeOptions{
		{MemLimit: -1}, {MaxProcs: -1},
		{MemLimit: 1 << 20, MaxProcs: -1, GOGC: -1}, // no value may take effect
	} {
		o.getenv = environ()
		if _, err := applyRuntime(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
		if got := inForce(); got != before {
			t.Fatalf("%+v changed the limits to %+v", o, got)
		}
	}
}

func TestRuntimeLimitsText(t *testing.T) {
	for want, l := range map[string]runtimeLimits{
		"memory limit 24 MiB, gogc 100, 2 processors":    {24 << 20, 100, 2},
		"memory limit none, gogc off, 1 processors":      {math.MaxInt64, -1, 1},
		"memory limit 1000000 B, gogc 100, 1 processors": {1_000_000, 100, 1},
		"memory limit 3 GiB, gogc 100, 1 processors":     {3 << 30, 100, 1},
		"memory limit 1025 KiB, gogc 100, 1 processors":  {1025 << 10, 100, 1},
	} {
		if got := l.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// filePages returns the resident memory of the program file, in kB.
func filePages(t *testing.T) (kB int) {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(smaps)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			ours = len(f) == 6 && f[5] == exe
		case ours && f[0] == "Rss:":
			n, _ := strconv.Atoi(f[1])
			kB += n
		}
	}
	return kB
}

var written = map[string]int{"before": 1} // in the writable part of the file

func TestReturnPages(t *testing.T) {
	written["now"] = 2
	before := filePages(t)
	if err := returnPages(); err != nil {
		t.Fatal(err)
	}
	after := filePages(t)
	if after > before-500 {
		t.Errorf("%d kB before, %d kB after", before, after)
	}
	if written["before"]+written["now"] != 3 {
		t.Error("modified data is lost")
	}
	if err := returnPages(); err != nil { // repeated calls are allowed
		t.Error(err)
	}
}

// garbage keeps the memory reachable until TestReturnHeap sets it to nil.
var garbage []byte

func TestReturnHeap(t *testing.T) {
	garbage = make([]byte, 64<<20)
	for i := range garbage {
		garbage[i] = 1
	}
	runtime.GC()
	before := anonymous(t)
	garbage = nil
	if err := returnMemory(); err != nil {
		t.Fatal(err)
	}
	if after := anonymous(t); before-after < 48<<10 {
		t.Errorf("%d kB before, %d kB after", before, after)
	}
}

func anonymous(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Anonymous:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatalf("no anonymous memory in %s", text)
	return 0
}
