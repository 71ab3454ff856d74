package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The files of one process in /proc. A search through all processes reads them relative to a
// descriptor (procscan.go), and uses the same parsers.

// pids returns the processes except ours, in ascending order.
func (n *Node) pids() (list []int, err error) {
	entries, err := os.ReadDir(n.kernel("/proc"))
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list, err
}

// ProcessStart returns the start time of the process pid, in clock ticks since boot, or
// "" if the process has exited. Together with the pid it identifies a process.
func ProcessStart(pid int) string { return new(Node).startOf(pid) }

func (n *Node) startOf(pid int) string {
	_, f := n.running(pid)
	return f[statStart]
}

// stat has the fields of proc_pid_stat(5) from the state on.
type stat [20]string

// Indices of a stat.
const (
	statState   = 0
	statParent  = 1
	statGroup   = 2
	statSession = 3
	statFlags   = 6
	statStart   = 19
)

// ended reports whether the process has exited: it is a zombie or dead.
func (f stat) ended() bool { return f[statState] == "Z" || f[statState] == "X" }

// waits reports whether the process waits in the kernel and cannot be killed.
func (f stat) waits() bool { return f[statState] == "D" }

// isService reports whether the process is in the main process group of a session, like a service that
// a command has started. A command of Exec has a process group in the session of its daemon.
func (f stat) isService() bool { return f[statGroup] == f[statSession] }

// running returns a directory of /proc that shows the process, and its stat. The directory is "" if
// the process has exited. A zombie is running while one of its threads runs; then the directory is
// that of the thread, because the process itself no longer shows its environment and command line.
func (n *Node) running(pid int) (dir string, f stat) {
	proc := n.kernel(fmt.Sprintf("/proc/%d", pid))
	f, ok := statOf(proc)
	if ok && !f.ended() {
		return proc, f
	}
	if ok {
		for _, tid := range names(filepath.Join(proc, "task"), nil) {
			thread := filepath.Join(proc, "task", tid)
			if t, ok := statOf(thread); ok && !t.ended() {
				return thread, f
			}
		}
	}
	return "", stat{}
}

func statOf(dir string) (f stat, ok bool) {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return f, false
	}
	return parseStat(b)
}

func parseStat(b []byte) (f stat, ok bool) {
	// The name may contain blanks and brackets, so the fields are counted from its end.
	return f, copy(f[:], strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))) == len(f)
}

// status is the text of proc_pid_status(5).
type status []byte

// statusIn returns the status in a directory of /proc, or nil.
func statusIn(dir string) status {
	b, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return nil
	}
	return b
}

func (s status) field(name string) string {
	for line := range bytes.Lines(s) {
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && string(key) == name {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

// users returns the real, effective, saved and file system user ID, or nil.
func (s status) users() (users []uint32) {
	for _, id := range strings.Fields(s.field("Uid")) {
		uid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil
		}
		users = append(users, uint32(uid))
	}
	return users
}

// own reports whether all user IDs of the process are ours. The environment of a setuid program is
// that of the local user who started it, so it proves nothing.
func (s status) own() bool {
	users := s.users()
	return len(users) > 0 && !slices.ContainsFunc(users, func(uid uint32) bool { return uid != uint32(os.Geteuid()) })
}

// killed reports whether SIGKILL is pending.
func (s status) killed() bool {
	for _, name := range []string{"SigPnd", "ShdPnd"} {
		if mask, err := strconv.ParseUint(s.field(name), 16, 64); err == nil && mask&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// switches is different as soon as the process has run in between.
func (s status) switches() string {
	return s.field("voluntary_ctxt_switches") + " " + s.field("nonvoluntary_ctxt_switches")
}

// lookupEnviron returns the value of a variable in the text of proc_pid_environ(5). prefix is KEY=.
func lookupEnviron(env []byte, prefix string) (value string, ok bool) {
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(prefix)); ok {
			return string(v), true
		}
	}
	return "", false
}

func (n *Node) lineOf(pid int) (program, line string) {
	proc, _ := n.running(pid)
	b, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if proc == "" || err != nil {
		return "", ""
	}
	words := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	return filepath.Base(words[0]), text.Clip(strings.ToValidUTF8(Command{Argv: words}.String(), "?"), 300)
}

// ticks is the number of clock ticks per second in /proc (USER_HZ), a constant of Linux.
const ticks = 100

// uptime returns the time since boot, or 0.
func (n *Node) uptime() time.Duration {
	first, _, _ := strings.Cut(attribute(n.kernel("/proc/uptime")), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}
