package daemon

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
)

// RuntimeOptions are the wanted limits of the Go runtime.
type RuntimeOptions struct {
	MemLimit int64  // bytes of memory to stay under, soft; 0 leaves it as it is
	GOGC     string // per cent of heap growth between collections, or "off"; "" leaves it
	MaxProcs int    // threads that run Go code at once; 0 leaves it

	TakenProcs bool // the process began with one thread: 0 above gives the others back

	Getenv func(string) string // nil: os.Getenv
}

// RuntimeLimits are the limits in force, for the start line of the log.
type RuntimeLimits struct {
	MemLimit int64 // bytes; math.MaxInt64 is none
	GOGC     int   // per cent; negative is off
	MaxProcs int
}

// ApplyRuntime sets the limits, except those that the environment sets:
// GOMEMLIMIT, GOGC and GOMAXPROCS were applied by the Go runtime before main and
// win over any file. It may be called again with other values. On an error,
// nothing has been changed.
func ApplyRuntime(o RuntimeOptions) (RuntimeLimits, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	percent, err := parseGOGC(o.GOGC)
	if err != nil {
		return RuntimeLimits{}, err
	}
	if o.MemLimit < 0 || o.MaxProcs < 0 {
		return RuntimeLimits{}, fmt.Errorf("memory limit %d and number of processors %d must not be negative", o.MemLimit, o.MaxProcs)
	}
	var in RuntimeLimits

	if o.MemLimit > 0 && o.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(o.MemLimit)
	}
	in.MemLimit = debug.SetMemoryLimit(-1)

	if o.GOGC == "" || o.Getenv("GOGC") != "" {
		// There is no call that only reads it.
		percent = debug.SetGCPercent(100)
	}
	debug.SetGCPercent(percent)
	in.GOGC = percent

	// Set explicitly, the runtime also stops looking for changed CPU limits.
	switch {
	case o.Getenv("GOMAXPROCS") != "":
	case o.MaxProcs > 0:
		runtime.GOMAXPROCS(o.MaxProcs)
	case o.TakenProcs:
		runtime.SetDefaultGOMAXPROCS()
	}
	in.MaxProcs = runtime.GOMAXPROCS(0)
	return in, nil
}

func parseGOGC(s string) (int, error) {
	switch s {
	case "":
		return 0, nil
	case "off":
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 || n > math.MaxInt32 {
		return 0, fmt.Errorf("gogc %q is neither a percentage above 0 nor \"off\"", s)
	}
	return n, nil
}

// String is, for example, "memory limit 24 MiB, gogc 100, 2 processors".
func (l RuntimeLimits) String() string {
	return "memory limit " + l.memLimit() + ", gogc " + l.gogc() + ", " + strconv.Itoa(l.MaxProcs) + " processors"
}

// LogValue makes three fields of it.
func (l RuntimeLimits) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("gomemlimit", l.memLimit()),
		slog.String("gogc", l.gogc()),
		slog.Int("gomaxprocs", l.MaxProcs),
	)
}

func (l RuntimeLimits) gogc() string {
	if l.GOGC < 0 {
		return "off"
	}
	return strconv.Itoa(l.GOGC)
}

func (l RuntimeLimits) memLimit() string {
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
