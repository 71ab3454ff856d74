package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A process is one of this namespace.
type process struct {
	PID     int
	Command string
}

func processes() (list []process) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", d.Name(), "stat"))
		if err != nil {
			continue // gone meanwhile
		}
		// 12 (name) S ...: the name may hold anything, so look from the end.
		head, tail, _ := strings.Cut(string(stat), " (")
		i := strings.LastIndex(tail, ") ")
		if i < 0 || head == "" || strings.ContainsAny(tail[i+2:i+3], "ZX") {
			continue // dead and not yet reaped
		}
		name := tail[:i] // all that there is in the middle of an exec
		if cmd, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline")); len(cmd) > 0 {
			name = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
		}
		list = append(list, process{pid, name})
	}
	return list
}

// strays are processes that neither were here first nor belong to something
// that the test holds.
func (l *Lab) strays() []process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(processes(), func(p process) bool { return l.before[p.PID] || l.pids[p.PID] })
}

// killStrays ends all processes that came into the laboratory. It is safe
// because the process namespace is ours: no process of the host has a number
// here.
func (l *Lab) killStrays() {
	for range 10 { // what is killed may just have started another
		list := processes()
		list = slices.DeleteFunc(list, func(p process) bool { return l.before[p.PID] })
		if len(list) == 0 {
			return
		}
		for _, p := range list {
			if fd, err := unix.PidfdOpen(p.PID, 0); err == nil {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 2000)
				_ = unix.Close(fd)
			}
		}
	}
}
