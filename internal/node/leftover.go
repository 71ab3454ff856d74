package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Leftover is a command that an earlier daemon started and that still runs.
type Leftover struct {
	PID     int
	Program string // the name that it was started by, without directories
	Line    string // its command line, shortened
}

// leftoverPoll is the time between two looks where the kernel cannot tell us of the end
// of a process that is not our child (before Linux 5.3).
const leftoverPoll = 100 * time.Millisecond

// WaitLeftovers waits until no command is left that was started with mark, a KEY=value,
// in its Env by a process that is gone by now, at most for limit (0: as long as ctx
// lasts). found is called with each one before it is waited for. What still runs after
// limit is returned; the error is the cause of ctx's end.
//
// Only processes like those that Exec starts count: leaders of a process group in
// another session, with our user id. So a service that a command has left behind is
// not waited for, and no other user can make us wait.
func (n *Node) WaitLeftovers(ctx context.Context, mark string, limit time.Duration, found func(Leftover)) ([]Leftover, error) {
	waits := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		waits, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	reported := map[int]bool{}
	for {
		list := n.leftovers(mark)
		if len(list) == 0 {
			return nil, nil
		}
		for _, l := range list {
			if !reported[l.PID] {
				reported[l.PID] = true
				found(l)
			}
		}
		if n.awaitEnd(waits, list[0].PID, mark); waits.Err() == nil {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return n.leftovers(mark), nil
	}
}

// leftovers lists the processes with the mark.
func (n *Node) leftovers(mark string) (list []Leftover) {
	dirs, err := os.ReadDir(n.kernel("/proc"))
	if err != nil {
		return nil
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err == nil && pid != os.Getpid() && n.isLeftover(pid, mark) {
			program, line := n.lineOf(pid)
			list = append(list, Leftover{PID: pid, Program: program, Line: line})
		}
	}
	return list
}

func (n *Node) isLeftover(pid int, mark string) bool {
	proc, f := n.running(pid)
	if proc == "" || f[1] == strconv.Itoa(os.Getpid()) || f[2] != strconv.Itoa(pid) || f[3] == f[2] {
		return false
	}
	if !ownProcess(filepath.Join(proc, "status")) {
		return false
	}
	env, err := os.ReadFile(filepath.Join(proc, "environ"))
	if err != nil {
		return false
	}
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if string(kv) == mark {
			return true
		}
	}
	return false
}

// ownProcess reports whether all user ids of a process are ours. A setuid program of
// a local user has that user's environment, which proves nothing.
func ownProcess(status string) bool {
	b, err := os.ReadFile(status)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		ids, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		for _, id := range strings.Fields(ids) {
			if id != strconv.Itoa(os.Geteuid()) {
				return false
			}
		}
		return true
	}
	return false
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

// ProcessStart tells when the process pid was started, in the kernel's ticks since
// boot: with the pid it is the identity of a process. It is "" when the process has
// ended.
func ProcessStart(pid int) string {
	_, f := new(Node).running(pid)
	return f[19]
}

// running returns a directory of /proc that shows the process, and its fields of
// proc_pid_stat(5) from the state on: state, parent, group, session, …, the start as
// number 19. The directory is "" when the process has ended. A zombie has not while a
// thread of it runs; then the directory is that of the thread, since the process itself
// shows neither environment nor command line any more.
func (n *Node) running(pid int) (dir string, f [20]string) {
	proc := n.kernel(fmt.Sprintf("/proc/%d", pid))
	f, ok := statOf(proc)
	if ok && f[0] != "Z" && f[0] != "X" {
		return proc, f
	}
	if ok {
		for _, tid := range names(filepath.Join(proc, "task"), nil) {
			thread := filepath.Join(proc, "task", tid)
			if t, ok := statOf(thread); ok && t[0] != "Z" && t[0] != "X" {
				return thread, f
			}
		}
	}
	return "", [20]string{}
}

func statOf(dir string) (f [20]string, ok bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return f, false
	}
	// The name may hold blanks and brackets; fields count from its end.
	return f, copy(f[:], strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))) == len(f)
}

// awaitEnd returns when the process has ended or ctx has.
func (n *Node) awaitEnd(ctx context.Context, pid int, mark string) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ENOSYS {
		select {
		case <-time.After(leftoverPoll):
		case <-ctx.Done():
		}
		return
	}
	if err != nil {
		return // it has just ended; the next look tells
	}
	defer unix.Close(fd)
	if !n.isLeftover(pid, mark) {
		return // the number belongs to another by now
	}
	read, write, err := os.Pipe()
	if err != nil {
		return
	}
	defer read.Close()
	stop := context.AfterFunc(ctx, func() { write.Close() })
	defer func() {
		if stop() {
			write.Close()
		}
	}()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(read.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return
		}
	}
}
