package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Notice is a message to the service manager, such as READY=1.
type Notice struct {
	Time time.Time
	Text string
}

// Value returns the value of a variable in the message.
func (n Notice) Value(name string) (string, bool) {
	for line := range strings.SplitSeq(n.Text, "\n") {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// notices receives messages in place of the service manager.
type notices struct {
	feed[Notice]
	conn *net.UnixConn
	over chan struct{}
}

// lastNotice is sent by close, after all other messages.
const lastNotice = "lab: no more"

func listenNotices(path string) (*notices, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	n := &notices{conn: conn, over: make(chan struct{})}
	go func() {
		defer close(n.over)
		defer n.end()
		buf := make([]byte, 64<<10)
		for {
			size, err := conn.Read(buf)
			if err != nil || string(buf[:size]) == lastNotice {
				return
			}
			n.add(Notice{time.Now(), string(buf[:size])})
		}
	}()
	return n, nil
}

// close stops receiving after all messages that have been sent. A read deadline could
// lose messages on a busy machine: after it, a read returns no data.
func (n *notices) close() {
	if n == nil {
		return
	}
	if conn, err := net.DialUnix("unixgram", nil, n.conn.LocalAddr().(*net.UnixAddr)); err == nil {
		_, _ = conn.Write([]byte(lastNotice))
		conn.Close()
	}
	_ = n.conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // in case the message is lost
	<-n.over
	n.conn.Close()
}

// Notices returns the messages of the daemon to the service manager so far.
func (p *Process) Notices() []Notice {
	if p.notices == nil {
		return nil
	}
	return p.notices.all()
}

// WaitNotice waits for a message with the assignment, such as READY=1, and returns the
// first one, including past messages.
func (p *Process) WaitNotice(ctx context.Context, assignment string) (Notice, error) {
	return p.notices.wait(ctx, func(n Notice) bool {
		return strings.Contains("\n"+n.Text+"\n", "\n"+assignment+"\n")
	})
}

// WaitNoticeText waits for a message that contains the text, and returns the first one,
// including past messages.
func (p *Process) WaitNoticeText(ctx context.Context, text string) (Notice, error) {
	return p.notices.wait(ctx, func(n Notice) bool { return strings.Contains(n.Text, text) })
}

// WaitReady waits for READY=1 and returns the time since the exec.
func (p *Process) WaitReady(ctx context.Context) (time.Duration, error) {
	n, err := p.WaitNotice(ctx, "READY=1")
	return n.Time.Sub(p.Started), err
}

// Usage is the resource usage of a process.
type Usage struct {
	RSS         int64 // bytes, resident
	Anonymous   int64 // bytes, not backed by a file
	Voluntary   int64 // voluntary context switches of all threads
	Involuntary int64 // involuntary context switches (preemption)
	Threads     int
	Files       int // open descriptors

	CPU time.Duration // user and system time, in steps of 10 ms
}

// Switches returns the sum of both kinds of context switches.
func (u Usage) Switches() int64 { return u.Voluntary + u.Involuntary }

// Usage returns the resource usage of the process. It does not wake the process.
func (p *Process) Usage() (Usage, error) { return ReadUsage(p.PID) }

// ReadUsage returns the resource usage of any process.
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
			continue // the thread has exited
		}
		u.Threads++
		u.Voluntary += number(status, "voluntary_ctxt_switches:")
		u.Involuntary += number(status, "nonvoluntary_ctxt_switches:")
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return u, err
	}
	u.Files = len(fds)
	u.CPU, err = cpuTime(proc + "/stat")
	return u, err
}

// cpuTime returns the user and system time in a file /proc/PID/stat (proc_pid_stat(5)),
// whose unit is 10 ms on all architectures of Linux that Go supports.
func cpuTime(path string) (time.Duration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// The name of the program may contain blanks and parentheses.
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("%s: unexpected contents %q", path, data)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// number returns the number of a line "name 123", or 0.
func number(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// Listeners returns the local addresses of the TCP sockets on which the process
// listens, in the hexadecimal form of the kernel.
func (p *Process) Listeners() ([]string, error) { return listeners(p.PID) }

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

// feed is a growing list whose items can be waited for.
type feed[T any] struct {
	mu      sync.Mutex
	items   []T
	changed chan struct{} // closed at each change
	ended   bool
}

func (f *feed[T]) change(apply func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	apply()
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

func (f *feed[T]) add(item T) { f.change(func() { f.items = append(f.items, item) }) }

// end marks the feed as complete.
func (f *feed[T]) end() { f.change(func() { f.ended = true }) }

func (f *feed[T]) all() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.items)
}

func (f *feed[T]) clear() { f.change(func() { f.items = nil }) }

// wait waits for an item that matches, and returns the first one, including past items.
func (f *feed[T]) wait(ctx context.Context, match func(T) bool) (T, error) {
	for {
		f.mu.Lock()
		if i := slices.IndexFunc(f.items, match); i >= 0 {
			defer f.mu.Unlock()
			return f.items[i], nil
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed, ended, n := f.changed, f.ended, len(f.items)
		f.mu.Unlock()
		var none T
		if ended {
			return none, fmt.Errorf("none of %d matches, and the feed is complete", n)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return none, fmt.Errorf("none of %d matches: %w", n, ctx.Err())
		}
	}
}
