package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says where the figures come from; without it they mean nothing.
type machine struct {
	Time      string `json:"time"`
	Daemon    string `json:"daemon"`
	Cores     int    `json:"cores"`
	Processor string `json:"processor"`
	Memory    int64  `json:"memory_mib"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	Load      string `json:"load"` // averages of 1, 5 and 15 minutes before
}

func (m machine) String() string {
	return fmt.Sprintf("compute-daemons %s, %s, %d cores (%s), %d MiB, Linux %s, load %s before, %s",
		m.Daemon, m.Go, m.Cores, m.Processor, m.Memory, m.Kernel, m.Load, m.Time)
}

func facts() machine {
	m := machine{Time: time.Now().UTC().Format("2006-01-02 15:04 MST"), Cores: runtime.NumCPU(), Go: runtime.Version(), Processor: runtime.GOARCH}
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
	if out, err := exec.Command(os.Getenv("CLIENTMOUNTD"), "version").Output(); err == nil {
		m.Daemon = strings.TrimPrefix(strings.TrimSpace(string(out)), "Version ")
	}
	return m
}
