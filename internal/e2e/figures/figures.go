// Package figures has what the benchmark and the fleet simulation share: the description
// of the machine, the use of its processors, and quantiles.
//
// It must not know what is measured.
package figures

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine describes the machine on which the figures were measured.
type Machine struct {
	Time      string `json:"time"`
	Daemon    string `json:"daemon"`
	Cores     int    `json:"cores"`
	Processor string `json:"processor"`
	Memory    int64  `json:"memory_mib"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	Load      string `json:"load"` // load averages of 1, 5 and 15 minutes, before the measurement
}

// String returns one line.
func (m Machine) String() string {
	return fmt.Sprintf("compute-daemons %s, %s, %d cores (%s), %d MiB, Linux %s, load %s before, %s",
		m.Daemon, m.Go, m.Cores, m.Processor, m.Memory, m.Kernel, m.Load, m.Time)
}

// ThisMachine describes this machine. daemon is the version of the daemons.
func ThisMachine(daemon string) Machine {
	m := Machine{Daemon: daemon, Time: time.Now().UTC().Format("2006-01-02 15:04 MST"), Cores: runtime.NumCPU(), Go: runtime.Version(), Processor: runtime.GOARCH}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = int64(s.Totalram) * int64(s.Unit) >> 20
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	return m
}

// Quantile returns the nearest-rank quantile, or 0 without values.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// Processors returns the time for which the processors of this machine have been busy, and
// the time that they had, since its start.
func Processors() (busy, had time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	return processors(string(text))
}

// processors reads the first line of /proc/stat (proc_stat(5)): times in units of 10 ms, of
// which the fourth and the fifth are idle.
func processors(stat string) (busy, had time.Duration, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat: unexpected line %q", line)
	}
	for i, field := range f[1:9] { // the times of guests are part of the first two
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		d := time.Duration(n) * 10 * time.Millisecond
		if had += d; i != 3 && i != 4 {
			busy += d
		}
	}
	return busy, had, nil
}
