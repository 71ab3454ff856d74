package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Process identifies a process: the kernel reuses a pid, but not together with the start
// time (in clock ticks since boot).
type Process struct {
	PID   int
	Start string
}

// Process returns the identity of a holder that is a process.
func (h Holder) Process() Process { return Process{h.PID, h.Start} }

// SignalRule is which processes SignalUser may signal.
type SignalRule struct {
	// MinUID is the lowest user ID of ordinary users. All user IDs of a process (real,
	// effective, saved, file system) must be at least this.
	MinUID uint32
	// Mark is KEY=. Commands of this daemon, which may outlive it, have this variable in
	// their environment, and they and their descendants are never signalled.
	Mark string
}

// ErrNoUser means that a process has exited or no longer uses the mount. The pid may
// belong to another process now. No signal was sent.
var ErrNoUser = errors.New("the process no longer uses the mount")

// ProtectedError means that a process uses the mount but may not be signalled.
type ProtectedError struct{ Reason string }

func (e *ProtectedError) Error() string { return "the process may not be signalled: " + e.Reason }

// overflowUID is the user ID that the kernel shows for users who have no ID in our user
// namespace (/proc/sys/kernel/overflowuid). It belongs to no person.
const overflowUID = 65534

// kernelThread is PF_KTHREAD, a flag in proc_pid_stat(5).
const kernelThread = 0x00200000

// Users returns the processes that prevent the unmount of m, at most limit. Unlike
// Holders it leaves out processes that use only a mount below m, or a copy of m in another
// mount namespace that the kernel does not unmount together with m. ctx and the errors are
// as for Holders.
func (n *Node) Users(ctx context.Context, m Mount, limit int) ([]Holder, error) {
	s, own, err := n.exactSearch(m)
	if err != nil {
		return nil, err
	}
	s.limit = limit
	if err := s.processes(ctx, own, (*worker).links, (*worker).maps); err != nil {
		return s.sorted(), fmt.Errorf("looking for users of %s: %w", m.Mountpoint, err)
	}
	if n := s.mostDenied(); n > 0 {
		return nil, fmt.Errorf("cannot inspect %d processes without CAP_SYS_PTRACE", n)
	}
	return s.sorted(), nil
}

// exactSearch returns a search for Users, and our own mount namespace. The error wraps
// ErrNoUser if m is no longer mounted.
func (n *Node) exactSearch(m Mount) (*search, *mountNS, error) {
	table, err := n.mounts(func(at string) bool { return safepath.Within(at, m.Mountpoint) })
	if err != nil {
		return nil, nil, err
	}
	if !slices.ContainsFunc(table, func(c Mount) bool {
		return c.ID == m.ID && c.Mountpoint == m.Mountpoint && c.Device() == m.Device() && c.Root == m.Root
	}) {
		return nil, nil, fmt.Errorf("%s was unmounted: %w", m.Mountpoint, ErrNoUser)
	}
	own := &mountNS{own: true, points: []string{m.Mountpoint}, ids: []int{m.ID}}
	own.exclude(table)
	return &search{n: n, m: m, exact: true, namespaces: map[string]*mountNS{}, waiting: n.waitingNow()}, own, nil
}

// exclude adds the mounts of a table that are below those to search for.
func (ns *mountNS) exclude(table []Mount) {
	for _, m := range table {
		if ns.has(m.Mountpoint) && !slices.Contains(ns.points, m.Mountpoint) {
			ns.excluded = append(ns.excluded, m.Mountpoint)
		}
	}
}

// SignalUser sends a signal to one process, never to a group, if the process is the one
// that Users found, still uses m, and the rule permits it. It checks all this immediately
// before the signal. The process cannot be confused with a later one that has the same
// pid: a pidfd refers to it; on a kernel without pidfds (before Linux 5.3) its start time
// is compared again.
//
// It returns what it found, and ErrNoUser, a *ProtectedError or another error if no signal
// was sent. It never signals process 1, this process, its descendants, the processes of
// its cgroup, kernel threads, and processes of root.
func (n *Node) SignalUser(ctx context.Context, m Mount, h Holder, sig unix.Signal, rule SignalRule) (Holder, error) {
	if h.PID <= 1 || h.Start == "" || rule.MinUID < 1 {
		return h, fmt.Errorf("internal error: signal to process %d, started %q, of users from %d", h.PID, h.Start, rule.MinUID)
	}
	// Another /proc, such as that of the host in a container, has other pids.
	if self, err := os.Readlink(n.kernel("/proc/self")); err != nil || self != strconv.Itoa(os.Getpid()) {
		return h, &ProtectedError{fmt.Sprintf("/proc does not show the pid namespace of this daemon (/proc/self is %q)", self)}
	}
	pidfd, err := n.openPidfd(h.PID)
	switch {
	case errors.Is(err, unix.ESRCH):
		return h, ErrNoUser
	case err != nil && !errors.Is(err, errNoPidfd):
		return h, fmt.Errorf("cannot signal process %d: %w", h.PID, err)
	case err == nil:
		defer unix.Close(pidfd)
	}
	now, err := n.verifyUser(ctx, m, h, rule)
	if err != nil {
		return now, err
	}
	if pidfd >= 0 {
		err = unix.PidfdSendSignal(pidfd, sig, nil, 0)
	} else if n.startOf(h.PID) == h.Start {
		err = unix.Kill(h.PID, sig)
	} else {
		err = ErrNoUser
	}
	switch {
	case errors.Is(err, unix.ESRCH):
		return now, ErrNoUser
	case errors.Is(err, unix.EPERM):
		return now, &ProtectedError{"this daemon has no permission (CAP_KILL)"}
	}
	return now, err
}

// verifyUser returns the holder as it is now. The error is that of SignalUser.
func (n *Node) verifyUser(ctx context.Context, m Mount, h Holder, rule SignalRule) (Holder, error) {
	s, own, err := n.exactSearch(m)
	if err != nil {
		return h, err
	}
	s.only, s.limit = h.PID, 1
	verdict := ErrNoUser // if the process has exited
	err = s.processes(ctx, own, func(w *worker, p *candidate) bool {
		verdict = w.verify(p, h, rule)
		return false
	})
	if err != nil { // the worker may still run
		return h, fmt.Errorf("process %d could not be inspected in time: %w", h.PID, err)
	}
	if found := s.sorted(); len(found) == 1 {
		h = found[0]
	}
	return h, verdict
}

// verify checks a process and reports it if it still uses the mount. All reads are from
// one directory of /proc, which never shows another process.
func (w *worker) verify(p *candidate, h Holder, rule SignalRule) error {
	same := func() (f stat, ok bool) {
		b, err := w.read(p.dir, "stat")
		if err != nil {
			return f, false
		}
		f, ok = parseStat(b)
		return f, ok && !f.ended() && f[statStart] == h.Start
	}
	f, ok := same()
	if !ok {
		return ErrNoUser
	}
	if w.links(p) {
		w.maps(p)
	}
	if len(w.sorted()) == 0 {
		if w.denied.Load() > 0 || w.skipped.Load() > 0 {
			return &ProtectedError{"it cannot be inspected"}
		}
		return ErrNoUser
	}
	reason := w.protects(p, f, rule)
	if _, ok := same(); !ok {
		return ErrNoUser
	}
	if reason != "" {
		return &ProtectedError{reason}
	}
	return nil
}

// protects returns the reason why a process may not be signalled, or "". If it cannot
// determine something, that is a reason.
func (w *worker) protects(p *candidate, f stat, rule SignalRule) string {
	flags, err := strconv.ParseUint(f[statFlags], 10, 64)
	if err != nil || flags&kernelThread != 0 {
		return "it is a kernel thread"
	}
	b, err := w.read(p.dir, "status")
	if err != nil {
		return "its users cannot be determined: " + err.Error()
	}
	users := status(b).users()
	if len(users) != 4 {
		return "its users cannot be determined"
	}
	for _, uid := range users {
		switch {
		case uid == 0:
			return "it belongs to root"
		case uid < rule.MinUID:
			return fmt.Sprintf("it belongs to the system user %d; ordinary users have IDs from %d", uid, rule.MinUID)
		case uid == overflowUID:
			return fmt.Sprintf("it belongs to user %d, which is no ordinary user", uid)
		}
	}
	if mine, err := w.descends(p, f, rule.Mark); err != nil {
		return "cannot determine whether this daemon started it: " + err.Error()
	} else if mine {
		return "this daemon started it"
	}
	return ""
}

// descends reports whether this process has started p, directly or not: p is a descendant,
// has the mark, or is in our cgroup. The latter two also find a process whose parent has
// exited.
func (w *worker) descends(p *candidate, f stat, mark string) (bool, error) {
	own := os.Getpid()
	if p.pid == own {
		return true, nil
	}
	// A parent that exits in between is replaced with the one of its parent, or process 1.
	parent, err := strconv.Atoi(f[statParent])
	for range maxAncestors {
		switch {
		case err != nil:
			return false, err
		case parent == own:
			return true, nil
		case parent <= 1:
			marked, err := w.marked(p, mark)
			return marked || w.inOwnCgroup(p), err
		}
		next, ok := statOf(w.n.kernel("/proc/" + strconv.Itoa(parent)))
		if !ok {
			return false, fmt.Errorf("its ancestor %d has just exited", parent)
		}
		parent, err = strconv.Atoi(next[statParent])
	}
	return false, fmt.Errorf("it has more than %d ancestors", maxAncestors)
}

// maxAncestors and maxEnvironment (in bytes) bound what is read about a process. The
// kernel limits the environment of a new program to 6 MiB.
const (
	maxAncestors   = 4096
	maxEnvironment = 8 << 20
)

// marked reports whether p has a variable in its environment that starts with mark.
func (w *worker) marked(p *candidate, mark string) (bool, error) {
	w.at.Store(int64(p.pid)) // the kernel takes the lock of the address space
	b, err := w.readMost(p.dir, "environ", maxEnvironment)
	w.at.Store(0)
	_, ok := lookupEnviron(b, mark)
	return ok, err
}

// inOwnCgroup reports whether p is in the cgroup of this process. A cgroup that this
// process shares with its parent does not count: it was not made for this daemon.
func (w *worker) inOwnCgroup(p *candidate) bool {
	own, err := os.ReadFile(w.n.kernel("/proc/self/cgroup"))
	if err != nil {
		return false
	}
	parent, err := os.ReadFile(w.n.kernel(fmt.Sprintf("/proc/%d/cgroup", os.Getppid())))
	if err == nil && bytes.Equal(own, parent) {
		return false
	}
	b, err := w.read(p.dir, "cgroup")
	return err == nil && bytes.Equal(own, b)
}

// WaitExit waits until all processes have exited, at most for limit or until ctx ends, and
// returns those that still run.
func (n *Node) WaitExit(ctx context.Context, list []Process, limit time.Duration) (running []Process) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, p := range list {
		runs := func() bool { return n.startOf(p.PID) == p.Start }
		for runs() && ctx.Err() == nil {
			n.awaitEnd(ctx, p.PID, runs)
		}
		if runs() {
			running = append(running, p)
		}
	}
	return running
}

// errNoPidfd means that the kernel has no pidfds, or that a system call filter hides them.
var errNoPidfd = errors.New("no pidfds")

// openPidfd returns a descriptor of a process, or -1 and an error that may be errNoPidfd.
func (n *Node) openPidfd(pid int) (int, error) {
	open := n.shared().pidfd
	if open == nil {
		open = func(pid int) (int, error) { return unix.PidfdOpen(pid, 0) }
	}
	fd, err := open(pid)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return -1, errNoPidfd
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// loginDefs is the file with the range of the IDs of ordinary users (login.defs(5)).
const loginDefs = "/etc/login.defs"

// defaultUIDMin is UID_MIN if login.defs has none.
const defaultUIDMin = 1000

// MinUID returns the lowest ID of ordinary users: UID_MIN of login.defs, or 1000 if there
// is no such file or no such entry. A file that cannot be read and an entry that is
// invalid are errors.
func (n *Node) MinUID() (uint32, error) {
	f, err := os.OpenFile(n.kernel(loginDefs), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return defaultUIDMin, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return 0, errors.Join(fmt.Errorf("%s is not a regular file", loginDefs), err)
	}
	const most = 1 << 20
	uid, found := uint32(defaultUIDMin), false
	in := &io.LimitedReader{R: f, N: most + 1}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if k, v, ok := strings.Cut(key, "\t"); ok {
			key, value = k, v+" "+value
		}
		if key != "UID_MIN" {
			continue
		}
		id, err := parseUID(value)
		if err != nil {
			return 0, fmt.Errorf("%s: UID_MIN: %w", loginDefs, err)
		}
		// Programs differ in which of several entries they use.
		if !found || id > uid {
			uid, found = id, true
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w", loginDefs, err)
	}
	if in.N <= 0 {
		return 0, fmt.Errorf("%s: longer than %d bytes", loginDefs, most)
	}
	return uid, nil
}

// parseUID returns the user ID in an entry of login.defs. Octal and hexadecimal numbers are
// refused.
func parseUID(value string) (uint32, error) {
	word := strings.Trim(value, " \t\"")
	id, err := strconv.ParseUint(word, 10, 32)
	if err != nil || id < 1 || id >= 1<<32-1 || word[0] == '0' {
		return 0, fmt.Errorf("%s is not a decimal user ID above 0", text.Quote(text.Clip(word, 40)))
	}
	return uint32(id), nil
}
