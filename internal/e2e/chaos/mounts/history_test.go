package mounts

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/chaos"
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
	*chaos.Log
	w    *node
	ctx  context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	spans   map[string][]span          // when something of ours was mounted, by path
	alien   map[int]string             // mounts of other programs: their paths, by ID
	events  map[string]time.Time       // when the last event of an object has arrived, by UID
	claims  map[string]string          // the last published state, by UID and mount
	owned   map[string]bool            // objects that had our finalizer, by UID
	excused map[string]bool            // objects whose finalizer the script has removed, by name
	live    map[string]lab.Object      // by name
	paths   map[string]map[string]bool // of the objects, by name
	life    map[string]map[string]bool // of the objects since they were created, by name
	volumes map[string]map[string]bool // of the objects, by name and volume
	hidden  map[string]bool            // volumes that were lost
	reports map[string][]report        // what was published, by path
	hooks   []hook                     // that have run and are not checked yet
	read    int64                      // bytes of the file of the hooks
}

// report is what was published about a path, and when.
type report struct {
	span
	state string
}

// hook is a hook that has run.
type hook struct {
	at          time.Time
	place, path string
}

// span is when something was mounted; a zero end means until now.
type span struct{ from, to time.Time }

func watch(w *node) *history {
	h := &history{
		Log: chaos.NewLog(), w: w, spans: map[string][]span{}, alien: map[int]string{}, claims: map[string]string{}, events: map[string]time.Time{},
		owned: map[string]bool{}, excused: map[string]bool{}, live: map[string]lab.Object{}, paths: map[string]map[string]bool{}, life: map[string]map[string]bool{},
		volumes: map[string]map[string]bool{}, hidden: map[string]bool{}, reports: map[string][]report{},
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
func (h *history) created(name string, mounts []place) {
	h.mu.Lock()
	delete(h.excused, name)
	h.mu.Unlock()
	h.expect(name, mounts)
}

// expect announces the mounts of an object.
func (h *history) expect(name string, mounts []place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.volumes[name] == nil {
		h.volumes[name] = map[string]bool{}
	}
	for _, m := range mounts {
		h.has(name, h.w.Path(m.path))
		h.volumes[name][m.volume] = true
	}
}

// has notes that an object has a path.
func (h *history) has(name, path string) {
	for _, all := range []map[string]map[string]bool{h.paths, h.life} {
		if all[name] == nil {
			all[name] = map[string]bool{}
		}
		all[name][path] = true
	}
}

// pathsOf returns the mount paths of an object. nil has none.
func pathsOf(o lab.Object) (list []string) {
	mounts, _ := o.At("spec", "mounts").([]any)
	for i := range mounts {
		path, _ := o.At("spec", "mounts", i, "mountPath").(string)
		list = append(list, path)
	}
	return list
}

// lose notes that a volume was lost: what is active then cannot be deactivated.
func (h *history) lose(volume string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hidden[volume] = true
}

func (h *history) wasLost(volume string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hidden[volume]
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
				h.Note("the mount table: " + err.Error())
			}
		}
		h.checkHooks()
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
	h.Check()
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
			h.Wrong("the volume %s is mounted %d times for %d objects: %v", source, len(targets), n, targets)
		}
	}
	for path, n := range ours {
		if n > 1 {
			h.Wrong("%d mounts at %s", n, path)
		}
		if s := h.spans[path]; len(s) == 0 || !s[len(s)-1].to.IsZero() {
			h.spans[path] = append(s, span{from: now})
			h.Note("mounted " + path)
		}
	}
	for path, s := range h.spans {
		if last := &s[len(s)-1]; ours[path] == 0 && last.to.IsZero() {
			last.to = now
			h.Note("unmounted " + path)
		}
	}
	for id, path := range h.alien {
		if !alien[id] {
			h.Wrong("the mount of another program at %s is gone", path)
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
	h.Check()
	uid, name := o.String("metadata", "uid"), o.Name()
	finalizers, _ := o.At("metadata", "finalizers").([]any)
	ours := slices.Contains(finalizers, any(api.FinalizerClientMount)) && kind != "DELETED"
	since := time.Now().Add(-window)
	if previous := h.events[uid].Add(-lag); previous.After(since) {
		since = previous
	}
	h.events[uid] = time.Now()
	if was := h.live[name]; kind == "ADDED" && was.String("metadata", "uid") != uid {
		delete(h.life, name)
	}
	for _, path := range pathsOf(o) {
		h.has(name, path)
	}
	status := fmt.Sprint(o["status"])
	h.Note(fmt.Sprintf("%s %s %s %s %.200s", kind, name, o.String("spec", "desiredState"), finalizers, status))
	paths := pathsOf(o)
	for i, path := range paths {
		state, _ := o.At("status", "mounts", i, "state").(string)
		ready, _ := o.At("status", "mounts", i, "ready").(bool)
		key := fmt.Sprint(uid, " ", i)
		claim := ""
		if ready && kind != "DELETED" {
			claim = state
		}
		if last := h.claims[key]; kind == "MODIFIED" && claim != "" && claim != last && !h.others(name, path) {
			h.claimed(name, claim, since)
		}
		h.claims[key] = claim
		h.publish(path, claim)
	}
	if kind == "MODIFIED" || kind == "DELETED" {
		if h.owned[uid] && !ours && !h.excused[name] {
			h.released(name, o, since)
		}
	}
	h.owned[uid] = ours
	for path := range h.reports {
		if !slices.Contains(paths, path) && slices.Contains(pathsOf(h.live[name]), path) {
			h.publish(path, "")
		}
	}
	if kind == "DELETED" {
		delete(h.live, name)
	} else {
		h.live[name] = o
	}
}

// claimed checks what was published about a mount of an object for the first time. It may be about an
// earlier path of the object, because the daemon writes the status while its watch is interrupted.
func (h *history) claimed(name, claim string, since time.Time) {
	for path := range h.life[name] {
		if yes, no := h.mounted(path, since); claim == "mounted" && yes || claim == "unmounted" && no {
			return
		}
	}
	h.Wrong("%s is published as %s, but it is not: %v", name, claim, slices.Sorted(maps.Keys(h.life[name])))
}

// publish notes what is published about a path.
func (h *history) publish(path, claim string) {
	list := h.reports[path]
	if len(list) > 0 {
		last := &list[len(list)-1]
		if last.to.IsZero() && last.state == claim {
			return
		}
		if last.to.IsZero() {
			last.to = time.Now()
		}
	}
	if claim != "" {
		h.reports[path] = append(list, report{span{from: time.Now()}, claim})
	}
}

// The hooks of the changed profile that know the path.
var (
	mountHooks   = []string{"preMount", "postMount"}
	unmountHooks = []string{"preUnmount", "postUnmount"}
)

// hookLine returns the command of a hook, which logs its time, its place and the path.
func hookLine(place, file string) string {
	return fmt.Sprintf(`date "+%%s.%%N %s $MOUNT_PATH" >>%s`, place, file)
}

// checkHooks checks the hooks that have run since the last call, and not just now: their success must
// not have been published before.
func (h *history) checkHooks() {
	data, err := os.ReadFile(h.w.hooks)
	if err != nil {
		return // none has run
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	text := string(data[min(h.read, int64(len(data))):])
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if !strings.HasSuffix(line, "\n") {
			break
		}
		h.read += int64(len(line))
		seconds, err := strconv.ParseFloat(f[0], 64)
		if len(f) != 3 || err != nil {
			h.Wrong("the hooks have written %q", line)
			continue
		}
		h.hooks = append(h.hooks, hook{time.UnixMicro(int64(seconds * 1e6)), f[1], f[2]})
		h.Note("hook " + f[1] + " " + f[2])
	}
	now := time.Now()
	h.hooks = slices.DeleteFunc(h.hooks, func(k hook) bool {
		if now.Sub(k.at) < 2*lag {
			return false
		}
		h.Check()
		h.checkHook(k)
		return true
	})
}

// checkHook checks a hook that has run.
func (h *history) checkHook(k hook) {
	users := 0
	for name := range h.paths {
		if h.paths[name][k.path] {
			users++
		}
	}
	if users != 1 { // another object may mount and unmount there
		return
	}
	done := "mounted"
	if slices.Contains(unmountHooks, k.place) {
		done = "unmounted"
	}
	for _, r := range h.reports[k.path] {
		if r.state == done && k.at.After(r.from.Add(lag)) && (r.to.IsZero() || k.at.Before(r.to.Add(-lag))) {
			h.Wrong("the hook %s has run for %s at %.3f, but %s was published at %.3f", k.place, k.path, k.at.Sub(h.Start).Seconds(), done, r.from.Sub(h.Start).Seconds())
		}
	}
}

// others reports whether another object has the path, or had it before: it may still have to unmount
// it. An object whose finalizers were removed may be gone by then.
func (h *history) others(name, path string) bool {
	for other, had := range h.paths {
		if _, live := h.live[other]; other != name && had[path] && (live || h.excused[other]) {
			return true
		}
	}
	return false
}

// released checks an object that has lost our finalizer: nothing of it may be mounted or active.
func (h *history) released(name string, o lab.Object, since time.Time) {
	for volume := range h.volumes[name] {
		v := h.w.made[volume]
		if v == nil || h.hidden[volume] || h.uses(name, volume) {
			continue
		}
		if active, err := v.Active(); err != nil || active {
			h.Wrong("%s has lost its finalizer, but its volume %s is active, %v", name, volume, err)
		}
	}
	for _, path := range pathsOf(o) {
		if h.others(name, path) {
			continue
		}
		if _, no := h.mounted(path, since); !no {
			h.Wrong("%s has lost its finalizer, but %s is mounted", name, path)
		}
	}
}

// uses reports whether another object has, or had, the volume.
func (h *history) uses(name, volume string) bool {
	for other, had := range h.volumes {
		if other != name && had[volume] {
			return true
		}
	}
	return false
}

// overrun is how long a command may run after its limit: the daemon waits 500 ms from SIGTERM to
// SIGKILL, and the machine may be busy.
const overrun = 2 * time.Second

// pace checks that no command of the daemon runs longer than its limit. The daemon can end it only
// while it runs itself.
func (h *history) pace(w *node) {
	if w.daemon == nil || w.stopped || time.Since(w.started) < commandTimeout+overrun {
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
			h.Wrong("%q runs %d times at the same time", line, running[line])
		}
		if age := time.Since(c.Start); age > commandTimeout+overrun {
			h.Wrong("%q has been running for %v, its limit is %v", line, age.Round(time.Second), commandTimeout)
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
