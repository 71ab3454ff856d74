package mounts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// A published state was true at most window before its event arrives here, and at most lag before the
// previous event of the object has arrived.
const (
	window = 2 * time.Second
	lag    = time.Second
)

// history observes the mount table of the kernel and the objects at the API server, and checks both
// against each other.
type history struct {
	w    *node
	ctx  context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	lines    []string
	start    time.Time
	problems []string
	checks   int
	spans    map[string][]span          // when something of ours was mounted, by path
	alien    map[int]string             // mounts of other programs: their paths, by ID
	events   map[string]time.Time       // when the last event of an object has arrived, by UID
	claims   map[string]string          // the last published state, by UID and mount
	owned    map[string]bool            // objects that had our finalizer, by UID
	excused  map[string]bool            // objects whose finalizer the script has removed, by name
	live     map[string]lab.Object      // by name
	paths    map[string]map[string]bool // of the objects, by name
}

// span is when something was mounted; a zero end means until now.
type span struct{ from, to time.Time }

func watch(w *node) *history {
	h := &history{
		w: w, start: time.Now(), spans: map[string][]span{}, alien: map[int]string{}, claims: map[string]string{}, events: map[string]time.Time{},
		owned: map[string]bool{}, excused: map[string]bool{}, live: map[string]lab.Object{}, paths: map[string]map[string]bool{},
	}
	h.ctx, h.end = context.WithCancel(context.Background())
	ready := make(chan error, 1)
	h.done.Go(func() { h.table(ready) })
	w.Must(<-ready)
	h.done.Go(h.follow)
	return h
}

func (h *history) stop() {
	h.end()
	h.done.Wait()
}

// note adds a line to the history.
func (h *history) note(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(text)
}

func (h *history) add(text string) {
	h.lines = append(h.lines, fmt.Sprintf("%7.3f %s", time.Since(h.start).Seconds(), text))
}

// wrong records a failed check.
func (h *history) wrong(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	h.add("WRONG: " + text)
	if len(h.problems) < 10 {
		h.problems = append(h.problems, text)
	}
}

func (h *history) failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.problems) > 0
}

// String returns the last lines.
func (h *history) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.lines[max(0, len(h.lines)-150):], "\n")
}

func (h *history) foreign(id int, path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alien[id] = path
}

func (h *history) forget(id int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.alien, id)
}

// excuse expects that the object loses its finalizer.
func (h *history) excuse(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.excused[name] = true
}

// created announces an object.
func (h *history) created(name, path string) {
	h.mu.Lock()
	delete(h.excused, name)
	h.mu.Unlock()
	h.expect(name, path)
}

// expect announces the path of an object.
func (h *history) expect(name, path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paths[name] == nil {
		h.paths[name] = map[string]bool{}
	}
	h.paths[name][path] = true
}

// users returns the number of objects that have, or had, one of the paths.
func (h *history) users(paths []string) (n int) {
	for _, had := range h.paths {
		if slices.ContainsFunc(paths, func(p string) bool { return had[p] }) {
			n++
		}
	}
	return n
}

// table follows the mount table: the kernel reports each change as an exceptional condition.
func (h *history) table(ready chan<- error) {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = h.look()
	}
	ready <- err
	if err != nil {
		return
	}
	defer unix.Close(fd)
	for h.ctx.Err() == nil {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if n, _ := unix.Poll(p, 200); n > 0 {
			if err := h.look(); err != nil {
				h.note("the mount table: " + err.Error())
			}
		}
	}
}

// look compares the mount table with what must hold.
func (h *history) look() error {
	mounts, err := h.w.Mounts()
	if err != nil {
		return err
	}
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks++
	ours, alien := map[string]int{}, map[int]bool{}
	sources := map[string][]string{}
	for _, m := range mounts {
		switch {
		case m.Source == foreignSource:
			alien[m.ID] = true
		case m.Target == h.w.Runtime, strings.HasSuffix(m.Target, "/nested"), !strings.HasPrefix(m.Target, h.w.Base+"/"):
		default:
			ours[m.Target]++
			source := m.Device + m.Root
			if strings.Contains(m.Source, ":/") { // each mount of the stand-in for Lustre is a device of its own
				source = m.Source
			}
			sources[source] = append(sources[source], m.Target)
		}
	}
	for source, targets := range sources {
		// Two workflows can use the same storage, at paths of their own.
		if n := h.users(targets); len(targets) > max(n, 1) {
			h.wrong("the volume %s is mounted %d times for %d objects: %v", source, len(targets), n, targets)
		}
	}
	for path, n := range ours {
		if n > 1 {
			h.wrong("%d mounts at %s", n, path)
		}
		if s := h.spans[path]; len(s) == 0 || !s[len(s)-1].to.IsZero() {
			h.spans[path] = append(s, span{from: now})
			h.add("mounted " + path)
		}
	}
	for path, s := range h.spans {
		if last := &s[len(s)-1]; ours[path] == 0 && last.to.IsZero() {
			last.to = now
			h.add("unmounted " + path)
		}
	}
	for id, path := range h.alien {
		if !alien[id] {
			h.wrong("the mount of another program at %s is gone", path)
			delete(h.alien, id)
		}
	}
	return nil
}

// mounted reports whether something of ours was mounted at the path, and whether it was not, at some
// moment since start.
func (h *history) mounted(path string, start time.Time) (yes, no bool) {
	at := start
	for _, s := range h.spans[path] {
		if !s.to.IsZero() && s.to.Before(start) {
			continue
		}
		yes = true
		no = no || s.from.After(at)
		if s.to.IsZero() {
			return yes, no
		}
		at = s.to
	}
	return yes, true
}

// follow follows the objects. Their events are checked, but not what has changed while the connection
// was lost.
func (h *history) follow() {
	for h.ctx.Err() == nil {
		_ = h.w.Cluster.Follow(h.ctx, "ClientMount", h.w.Node, h.event)
		time.Sleep(50 * time.Millisecond) // the server may be down
	}
}

func (h *history) event(kind string, o lab.Object) {
	_ = h.look() // the table must not be older than the event
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks++
	uid, name := o.String("metadata", "uid"), o.Name()
	finalizers, _ := o.At("metadata", "finalizers").([]any)
	ours := slices.Contains(finalizers, any(api.FinalizerClientMount)) && kind != "DELETED"
	since := time.Now().Add(-window)
	if previous := h.events[uid].Add(-lag); previous.After(since) {
		since = previous
	}
	h.events[uid] = time.Now()
	status := fmt.Sprint(o["status"])
	h.add(fmt.Sprintf("%s %s %s %s %.200s", kind, name, o.String("spec", "desiredState"), finalizers, status))
	mounts, _ := o.At("status", "mounts").([]any)
	for i := range mounts {
		state, _ := o.At("status", "mounts", i, "state").(string)
		ready, _ := o.At("status", "mounts", i, "ready").(bool)
		key := fmt.Sprint(uid, " ", i)
		claim := ""
		if ready {
			claim = state
		}
		path, _ := o.At("spec", "mounts", i, "mountPath").(string)
		if last := h.claims[key]; kind == "MODIFIED" && claim != "" && claim != last && !h.others(name, path) {
			yes, no := h.mounted(path, since)
			switch {
			case claim == "mounted" && !yes:
				h.wrong("%s is published as mounted, but %s is not", name, path)
			case claim == "unmounted" && !no:
				h.wrong("%s is published as unmounted, but %s is", name, path)
			}
		}
		h.claims[key] = claim
	}
	if kind == "MODIFIED" || kind == "DELETED" {
		if h.owned[uid] && !ours && !h.excused[name] {
			h.released(name, o, since)
		}
	}
	h.owned[uid] = ours
	if kind == "DELETED" {
		delete(h.live, name)
	} else {
		h.live[name] = o
	}
}

// others reports whether another object has the path, or had it before: it may still have to unmount
// it.
func (h *history) others(name, path string) bool {
	for other := range h.live {
		if other != name && h.paths[other][path] {
			return true
		}
	}
	return false
}

// released checks an object that has lost our finalizer: nothing of it may be mounted.
func (h *history) released(name string, o lab.Object, since time.Time) {
	mounts, _ := o.At("spec", "mounts").([]any)
	for i := range mounts {
		path, _ := o.At("spec", "mounts", i, "mountPath").(string)
		if h.others(name, path) {
			continue
		}
		if _, no := h.mounted(path, since); !no {
			h.wrong("%s has lost its finalizer, but %s is mounted", name, path)
		}
	}
}

// pace checks that no command of the daemon runs longer than its limit. The daemon can end it only
// while it runs itself.
func (h *history) pace(w *node) {
	if w.daemon == nil || w.stopped || time.Since(w.started) < commandTimeout+5*time.Second {
		return
	}
	calls, err := w.Log()
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	running := map[string]int{}
	for _, c := range calls {
		if !c.End.IsZero() || unix.Kill(c.PID, 0) != nil || !isCall(c) {
			continue
		}
		line := c.Tool + " " + strings.Join(c.Argv, " ")
		if running[line]++; running[line] > 1 {
			h.wrong("%q runs %d times at the same time", line, running[line])
		}
		if age := time.Since(c.Start); age > commandTimeout+5*time.Second {
			h.wrong("%q has been running for %v, its limit is %v", line, age.Round(time.Second), commandTimeout)
		}
	}
}

// isCall reports whether the process of a call still is that call, not a zombie or a later process with
// its number.
func isCall(c lab.Call) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.PID))
	program, _, _ := strings.Cut(string(line), "\x00")
	return err == nil && filepath.Base(program) == c.Tool
}
