package node

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Marked is a process whose environment has a variable by which its starter has marked it.
type Marked struct {
	PID     int
	Parent  int
	Mark    string // value of the variable; "" if Unreadable
	Program string // name of the program, without directories
	Line    string // its command line, shortened
	Age     time.Duration
	Kernel  bool   // it waits in the kernel and cannot be killed (state D)
	Killed  bool   // it has been sent SIGKILL
	Waits   string // the function of the kernel in which it waits, if known
	// Unreadable means that the kernel does not return the environment of the process, because a
	// thread of it waits while it holds the lock of its address space. Whether the process is
	// marked is not known.
	Unreadable bool
}

// environTimeout is how long a process in state D may take to show its environment.
const environTimeout = 100 * time.Millisecond

// settleTime is how long a process must stay in state D, without running in between, to count as one
// that waits in the kernel. A process that reads and writes is often in state D, but never for long.
const settleTime = 100 * time.Millisecond

// Marked returns the processes of our user whose environment has the variable, by PID. Unlike
// WaitLeftovers it includes the children of commands, and commands of a running daemon. Like it, it
// leaves out services that a command has started. It does not block.
func (n *Node) Marked(ctx context.Context, variable string) (list []Marked, err error) {
	pids, err := n.pids()
	if err != nil {
		return nil, err
	}
	up := n.uptime()
	waiting := map[int]string{} // processes in state D, with what shows that they have run
	for _, pid := range pids {
		if ctx.Err() != nil {
			return list, context.Cause(ctx)
		}
		if m, switches, ok := n.marked(pid, variable, up); ok {
			list = append(list, m)
			if m.Kernel && !m.Killed {
				waiting[pid] = switches
			}
		}
	}
	if len(waiting) == 0 {
		return list, nil
	}
	pause := time.NewTimer(settleTime)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return list, context.Cause(ctx)
	}
	for i := range list {
		if switches, ok := waiting[list[i].PID]; ok && !n.stillWaits(list[i].PID, switches) {
			list[i].Kernel, list[i].Waits = false, ""
		}
	}
	return list, nil
}

// stillWaits reports whether a process is in state D and has not run since it had these switches.
func (n *Node) stillWaits(pid int, switches string) bool {
	proc, f := n.running(pid)
	return proc != "" && n.inKernel(proc, f) && statusIn(proc).switches() == switches
}

// inKernel reports whether a process is in state D. proc and f are the results of running.
func (n *Node) inKernel(proc string, f stat) bool {
	return f.waits() || f.ended() && n.threadWaits(proc)
}

func (n *Node) marked(pid int, variable string, up time.Duration) (m Marked, switches string, ok bool) {
	proc, f := n.running(pid)
	if proc == "" || f.isService() {
		return m, "", false
	}
	status := statusIn(proc)
	if !status.own() {
		return m, "", false
	}
	m = Marked{PID: pid, Kernel: n.inKernel(proc, f), Killed: status.killed()}
	m.Parent, _ = strconv.Atoi(f[statParent])
	if started, err := strconv.ParseInt(f[statStart], 10, 64); err == nil {
		m.Age = max(0, up-time.Duration(started)*(time.Second/ticks))
	}
	env, err := n.environ(proc, m.Kernel)
	switch {
	case err == errEnviron:
		m.Unreadable = true
	case err != nil:
		return m, "", false
	default:
		if m.Mark, ok = lookupEnviron(env, variable+"="); !ok {
			return m, "", false
		}
		m.Program, m.Line = n.lineOf(pid)
	}
	if m.Program == "" { // its command line is unreadable as well
		m.Program = attribute(proc, "comm")
		m.Line = printable(m.Program)
	}
	m.Program = printable(m.Program)
	if w := attribute(proc, "wchan"); m.Kernel && w != "0" {
		m.Waits = printable(w)
	}
	return m, status.switches(), true
}

// threadWaits reports whether the directory of a thread shows state D.
func (n *Node) threadWaits(proc string) bool {
	t, ok := statOf(proc)
	return ok && t.waits()
}

// errEnviron means that the kernel did not return the environment of a process in time.
const errEnviron = unix.ETIMEDOUT

// environ returns the environment of a process. The kernel takes the lock of its address space for
// this, so it may block for a process in state D. The reader then remains until the process exits.
func (n *Node) environ(proc string, waits bool) ([]byte, error) {
	file := filepath.Join(proc, "environ")
	if !waits {
		return os.ReadFile(file)
	}
	type result struct {
		data []byte
		err  error
	}
	c := make(chan result, 1)
	go func() {
		data, err := os.ReadFile(file)
		c <- result{data, err}
	}()
	timer := time.NewTimer(environTimeout)
	defer timer.Stop()
	select {
	case r := <-c:
		return r.data, r.err
	case <-timer.C:
		return nil, errEnviron
	}
}

// kernelThreads is the parent of all kernel threads (kthreadd).
const kernelThreads = "2"

// Programs returns the short names of the running processes (proc_pid_comm(5)), without kernel
// threads. Any user can choose the name of a process, so they are only for diagnosis.
func (n *Node) Programs() map[string]bool {
	found := map[string]bool{}
	pids, _ := n.pids()
	for _, pid := range pids {
		proc := n.kernel("/proc/" + strconv.Itoa(pid))
		if f, ok := statOf(proc); ok && f[statParent] != kernelThreads && !f.ended() {
			found[attribute(proc, "comm")] = true
		}
	}
	return found
}
