package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Leftover is a command that an earlier daemon started and that is still running.
type Leftover struct {
	PID     int
	Program string // name of the program, without directories
	Line    string // its command line, shortened
}

// leftoverPoll is the polling interval if the kernel cannot report the exit of a process
// that is not our child (before Linux 5.3).
const leftoverPoll = 100 * time.Millisecond

// WaitLeftovers waits until all commands have exited that an earlier process started with
// mark, a KEY=value, in their Env, at most for limit (0: until ctx ends). It calls found
// with each command before it waits for it. It returns the commands that still run after
// limit; the error is the cause of ctx.
//
// It considers only processes like those that Exec starts: leaders of a process group,
// not of a session, with our user ID. So it does not wait for a service that a command
// has started, and no other user can make it wait.
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
		pid := list[0].PID
		if n.awaitEnd(waits, pid, func() bool { return n.isLeftover(pid, mark) }); waits.Err() == nil {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return n.leftovers(mark), nil
	}
}

// leftovers returns the processes with the mark.
func (n *Node) leftovers(mark string) (list []Leftover) {
	pids, err := n.pids()
	if err != nil {
		return nil
	}
	for _, pid := range pids {
		if n.isLeftover(pid, mark) {
			program, line := n.lineOf(pid)
			list = append(list, Leftover{PID: pid, Program: program, Line: line})
		}
	}
	return list
}

func (n *Node) isLeftover(pid int, mark string) bool {
	proc, f := n.running(pid)
	if proc == "" || f[statParent] == strconv.Itoa(os.Getpid()) || f[statGroup] != strconv.Itoa(pid) || f.isService() || !statusIn(proc).own() {
		return false
	}
	key, value, _ := strings.Cut(mark, "=")
	env, err := os.ReadFile(filepath.Join(proc, "environ"))
	found, ok := lookupEnviron(env, key+"=")
	return err == nil && ok && found == value
}

// awaitEnd returns when the process has exited or ctx is done. It returns as well if
// running, called after the pid is pinned, reports that the process is not the expected
// one.
func (n *Node) awaitEnd(ctx context.Context, pid int, running func() bool) {
	poll := func() {
		select {
		case <-time.After(leftoverPoll):
		case <-ctx.Done():
		}
	}
	fd, err := n.openPidfd(pid)
	if errors.Is(err, unix.ESRCH) {
		return // it has just exited; the caller checks again
	}
	if err != nil { // no pidfds, or no free descriptor
		poll()
		return
	}
	defer unix.Close(fd)
	if !running() {
		return // the pid now belongs to another process
	}
	read, write, err := os.Pipe()
	if err != nil {
		poll()
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
