package daemon

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RuntimeOptions are the wanted limits of the Go runtime.
type RuntimeOptions struct {
	MemLimit int64 // bytes of memory to stay under, soft; 0 leaves it as it is
	GOGC     int   // per cent of heap growth between collections, negative for off; 0 leaves it
	MaxProcs int   // threads that run Go code at once; 0 leaves it

	TakenProcs bool // the process began with one thread: 0 above gives the others back

	getenv func(string) string // nil: os.Getenv
}

// runtimeLimits are the limits in force, for the start line of the log.
type runtimeLimits struct {
	MemLimit int64 // bytes; math.MaxInt64 is none
	GOGC     int   // per cent; negative is off
	MaxProcs int
}

// applyRuntime sets the limits, except those that the environment sets:
// GOMEMLIMIT, GOGC and GOMAXPROCS were applied by the Go runtime before main and
// win over any file. It may be called again with other values. On an error,
// nothing has been changed.
func applyRuntime(o RuntimeOptions) (runtimeLimits, error) {
	if o.getenv == nil {
		o.getenv = os.Getenv
	}
	if o.MemLimit < 0 || o.MaxProcs < 0 {
		return runtimeLimits{}, fmt.Errorf("memory limit %d and number of processors %d must not be negative", o.MemLimit, o.MaxProcs)
	}
	var in runtimeLimits

	if o.MemLimit > 0 && o.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(o.MemLimit)
	}
	in.MemLimit = debug.SetMemoryLimit(-1)

	percent := o.GOGC
	if percent == 0 || o.getenv("GOGC") != "" {
		// There is no call that only reads it.
		percent = debug.SetGCPercent(100)
	}
	debug.SetGCPercent(percent)
	in.GOGC = percent

	// Set explicitly, the runtime also stops looking for changed CPU limits.
	switch {
	case o.getenv("GOMAXPROCS") != "":
	case o.MaxProcs > 0:
		runtime.GOMAXPROCS(o.MaxProcs)
	case o.TakenProcs:
		runtime.SetDefaultGOMAXPROCS()
	}
	in.MaxProcs = runtime.GOMAXPROCS(0)
	return in, nil
}

// String is, for example, "memory limit 24 MiB, gogc 100, 2 processors".
func (l runtimeLimits) String() string {
	return "memory limit " + l.memLimit() + ", gogc " + l.gogc() + ", " + strconv.Itoa(l.MaxProcs) + " processors"
}

func (l runtimeLimits) gogc() string {
	if l.GOGC < 0 {
		return "off"
	}
	return strconv.Itoa(l.GOGC)
}

func (l runtimeLimits) memLimit() string {
	if l.MemLimit == math.MaxInt64 {
		return "none"
	}
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}} {
		if l.MemLimit >= u.size && l.MemLimit%u.size == 0 {
			return strconv.FormatInt(l.MemLimit/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(l.MemLimit, 10) + " B"
}

// returnMemory gives back what starting and working needed and waiting does
// not. It is called when the daemon has become idle.
//
// The Go heap is left alone until there has been a garbage collection: the
// first one allocates more than it frees in a heap of this size, and from then
// on the runtime wakes up every two minutes for the next.
func returnMemory() error {
	var gc debug.GCStats
	if debug.ReadGCStats(&gc); gc.NumGC > 0 {
		debug.FreeOSMemory()
	}
	return returnPages()
}

// returnPages takes the pages of the program's own file, code and constants,
// out of this process. They stay in the kernel's page cache, where other needs
// may now evict them, and come back by themselves when they are touched, at
// about a microsecond each. Nothing that was written to is affected.
func returnPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(string(line), "%x-%x %s", &from, &to, &mode); err != nil {
			continue
		}
		if strings.Contains(mode, "w") || !strings.HasSuffix(strings.TrimSuffix(string(line), "\n"), " "+exe) {
			continue
		}
		// By number, not through package unix: this memory is not Go's.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise %x-%x: %w", from, to, errno)
		}
	}
	return nil
}
