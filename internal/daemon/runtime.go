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

// RuntimeOptions are the requested limits of the Go runtime.
type RuntimeOptions struct {
	MemLimit int64 // soft memory limit in bytes; 0: unchanged
	GOGC     int   // heap growth between collections in percent, negative: off, 0: unchanged
	MaxProcs int   // threads that run Go code concurrently; 0: unchanged

	TakenProcs bool // oneprocessor has set MaxProcs to 1: 0 above restores the default

	getenv func(string) string // nil: os.Getenv
}

// runtimeLimits are the limits in effect, for the log record of the start.
type runtimeLimits struct {
	MemLimit int64 // bytes; math.MaxInt64: no limit
	GOGC     int   // percent; negative: off
	MaxProcs int
}

// applyRuntime sets the limits, except those that GOMEMLIMIT, GOGC and GOMAXPROCS in
// the environment set: the Go runtime has applied them before main, and they override
// the file. It may be called again with other values. After an error nothing has
// changed.
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
		// No function only reads the value.
		percent = debug.SetGCPercent(100)
	}
	debug.SetGCPercent(percent)
	in.GOGC = percent

	// After an explicit value, the runtime also stops checking for changed CPU limits.
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

// String returns, for example, "memory limit 24 MiB, gogc 100, 2 processors".
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

// returnMemory returns memory to the kernel that an idle daemon does not need. It is
// called when the daemon has become idle.
//
// It leaves the Go heap alone until the first garbage collection: that collection
// allocates more than it frees in a heap of this size, and afterwards the runtime
// wakes up every two minutes for the next one.
func returnMemory() error {
	var gc debug.GCStats
	if debug.ReadGCStats(&gc); gc.NumGC > 0 {
		debug.FreeOSMemory()
	}
	return returnPages()
}

// returnPages removes the pages of the program file (code and constants) from the
// memory of this process. They stay in the page cache, where the kernel may evict
// them, and are mapped again on access, at about a microsecond each. Modified pages
// are not affected.
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
		// A raw system call: package unix accepts only Go memory.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise %x-%x: %w", from, to, errno)
		}
	}
	return nil
}
