package lab

import (
	"context"
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

// Notice is one message to the service manager, such as READY=1.
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

// notices receives them in the manager's place.
type notices struct {
	feed[Notice]
	conn *net.UnixConn
	over chan struct{}
}

// lastNotice is what close sends itself, behind all that others have sent.
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

// close stops receiving, after what was sent already. A deadline would lose
// that on a busy machine: who reads behind one gets nothing, whatever is there.
func (n *notices) close() {
	if n == nil {
		return
	}
	if conn, err := net.DialUnix("unixgram", nil, n.conn.LocalAddr().(*net.UnixAddr)); err == nil {
		_, _ = conn.Write([]byte(lastNotice))
		conn.Close()
	}
	_ = n.conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // should that not have come
	<-n.over
	n.conn.Close()
}

// Notices returns the daemon's messages to the service manager so far.
func (p *Process) Notices() []Notice {
	if p.notices == nil {
		return nil
	}
	return p.notices.all()
}

// WaitNotice returns the first message with the assignment, such as READY=1,
// past or future.
func (p *Process) WaitNotice(ctx context.Context, assignment string) (Notice, error) {
	return p.notices.wait(ctx, func(n Notice) bool {
		return strings.Contains("\n"+n.Text+"\n", "\n"+assignment+"\n")
	})
}

// WaitNoticeText returns the first message that contains the text, past or
// future.
func (p *Process) WaitNoticeText(ctx context.Context, text string) (Notice, error) {
	return p.notices.wait(ctx, func(n Notice) bool { return strings.Contains(n.Text, text) })
}

// WaitReady returns how long the daemon took from exec to READY=1.
func (p *Process) WaitReady(ctx context.Context) (time.Duration, error) {
	n, err := p.WaitNotice(ctx, "READY=1")
	return n.Time.Sub(p.Started), err
}

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
func (p *Process) Usage() (Usage, error) { return ReadUsage(p.PID) }

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

// A feed is a growing list that can be waited on.
type feed[T any] struct {
	mu      sync.Mutex
	items   []T
	changed chan struct{} // closed at every change
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

// end says that nothing more will come.
func (f *feed[T]) end() { f.change(func() { f.ended = true }) }

func (f *feed[T]) all() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.items)
}

func (f *feed[T]) clear() { f.change(func() { f.items = nil }) }

// wait returns the first item that fits, past or future.
func (f *feed[T]) wait(ctx context.Context, fits func(T) bool) (T, error) {
	for {
		f.mu.Lock()
		if i := slices.IndexFunc(f.items, fits); i >= 0 {
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
			return none, fmt.Errorf("none of %d fits and no more will come", n)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return none, fmt.Errorf("none of %d fits: %w", n, ctx.Err())
		}
	}
}
