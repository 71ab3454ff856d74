package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a process costs.
type Usage struct {
	RSS         int64 // bytes, resident
	Anonymous   int64 // bytes, the part that no file backs
	Voluntary   int64 // context switches of all threads, because of waiting
	Involuntary int64 // because of preemption
	Threads     int
	Files       int // open descriptors
}

// Switches is the sum of both kinds.
func (u Usage) Switches() int64 { return u.Voluntary + u.Involuntary }

// Usage reads the daemon's cost from the kernel. It does not wake the daemon.
func (d *Daemon) Usage() (Usage, error) { return ReadUsage(d.PID) }

// ReadUsage reads the cost of any process.
func ReadUsage(pid int) (Usage, error) {
	var u Usage
	proc := fmt.Sprintf("/proc/%d", pid)
	smaps, err := os.ReadFile(proc + "/smaps_rollup")
	if err != nil {
		return u, err
	}
	u.RSS, u.Anonymous = 1024*number(smaps, "Rss:"), 1024*number(smaps, "Anonymous:")
	tasks, err := filepath.Glob(proc + "/task/*/status")
	if err != nil {
		return u, err
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		u.Threads++
		u.Voluntary += number(status, "voluntary_ctxt_switches:")
		u.Involuntary += number(status, "nonvoluntary_ctxt_switches:")
	}
	fds, err := os.ReadDir(proc + "/fd")
	u.Files = len(fds)
	return u, err
}

// number finds a line "name 123".
func number(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// Listeners returns the local addresses, in the kernel's hexadecimal form, of
// the TCP sockets that the daemon itself listens on.
func (d *Daemon) Listeners() ([]string, error) { return listeners(d.PID) }

func listeners(pid int) ([]string, error) {
	proc := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, fd := range fds {
		if link, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil {
			if inode, ok := strings.CutPrefix(link, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	var list []string
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(filepath.Join(proc, "net", table))
		if err != nil {
			continue // no IPv6
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && own[f[9]] {
				list = append(list, f[1])
			}
		}
	}
	return list, nil
}
