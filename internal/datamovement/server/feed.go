package server

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

const (
	// linger is how long the watch stays after the last call that followed a
	// movement: clients ask again every second or so.
	linger = 10 * time.Second
	// trusted is how long an object that was read by a request, and that the
	// watch has not shown yet, stands for itself: the watch may begin with a
	// state that is some moments old.
	trusted = 5 * time.Second
	// versionRetry is the pause after the served version went away.
	versionRetry = 5 * time.Second
)

// feed knows this node's movements of one namespace while somebody follows one.
type feed struct {
	api       *remote
	namespace string
	node      string
	log       *slog.Logger
	enter     func() // something lives
	leave     func()
	sight     *sight

	mu      sync.Mutex
	users   int
	cancel  context.CancelFunc // nil: no watch
	ended   chan struct{}      // closed when the watch's goroutine has returned
	timer   *time.Timer
	stopped bool
	known   map[string]*entry
	waiting map[string]map[chan<- struct{}]struct{} // by the movement's name
	down    bool                                    // the watch was lost, which was said
	trouble error                                   // with which, as it was said last
}

type entry struct {
	dm   *nnf.DataMovement
	seen bool      // by the watch; else by a request
	at   time.Time // of the request
}

// follow keeps the watch alive until release.
func (f *feed) follow() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if f.cancel == nil && !f.stopped {
		ctx, cancel := context.WithCancel(context.Background())
		f.cancel, f.ended = cancel, make(chan struct{})
		f.known = make(map[string]*entry)
		f.enter()
		f.sight.watch(f.namespace, f.down)
		go f.run(ctx, f.ended)
	}
	return sync.OnceFunc(f.release)
}

func (f *feed) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users > 0 || f.cancel == nil {
		return
	}
	f.timer = time.AfterFunc(linger, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.users == 0 {
			f.end()
		}
	})
}

// end is called under mu.
func (f *feed) end() {
	if f.cancel != nil {
		f.cancel()
		f.cancel, f.known = nil, nil
		f.sight.end(f.namespace)
		f.leave()
	}
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
}

// stop ends the watch for good and waits for its goroutine.
func (f *feed) stop() {
	f.mu.Lock()
	f.stopped = true
	f.end()
	ended := f.ended
	f.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

func (f *feed) run(ctx context.Context, ended chan struct{}) {
	defer close(ended)
	o := kube.WatchOptions{Selector: api.LabelInitiator + "=" + f.node, OnState: func(st kube.State) { f.state(ctx, st) }}
	for ctx.Err() == nil {
		err := daemon.Safely(func() error {
			return f.api.with(ctx, kindMovement, func(res kube.Resource) error {
				return f.api.Watch(ctx, res, f.namespace, o, kube.Handler[nnf.DataMovement]{
					Replace: func(items []*nnf.DataMovement) { f.replace(ctx, items) },
					Upsert:  func(dm *nnf.DataMovement) { f.upsert(ctx, dm) },
					Delete:  func(_, name string) { f.remove(ctx, name) },
					// Requests will say what is wrong with it.
					Malformed: func(_, name string, _ error) { f.remove(ctx, name) },
				})
			})
		})
		if ctx.Err() != nil {
			return
		}
		f.state(ctx, kube.State{LastError: err})
		if errors.Is(err, kube.ErrVersionGone) {
			f.api.forget(api.GroupNNF)
		}
		pause(ctx, versionRetry)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// state says that the watch is lost, once for each kind of trouble, and once that
// it is back.
func (f *feed) state(ctx context.Context, s kube.State) {
	f.mu.Lock()
	if ctx.Err() != nil { // another watch may have begun
		f.mu.Unlock()
		return
	}
	was, said := f.down, f.trouble
	f.down, f.trouble = !s.Connected, s.LastError
	f.sight.watch(f.namespace, f.down)
	f.mu.Unlock()
	switch {
	case !s.Connected && !(was && kube.SameTrouble(said, s.LastError)):
		f.log.Warn("lost sight of the data movements, trying again", "namespace", f.namespace, "error", s.LastError, daemon.EventID(eventFollow))
	case s.Connected && was:
		f.log.Info("data movements are in sight again", "namespace", f.namespace, daemon.EventID(eventFollow))
	}
}

func (f *feed) replace(ctx context.Context, items []*nnf.DataMovement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	old := f.known
	f.known = make(map[string]*entry, len(items))
	for _, dm := range items {
		e := &entry{dm: dm, seen: true}
		if have := old[dm.Name]; have != nil && newer(have.dm, dm) {
			e = have
		}
		f.known[dm.Name] = e
	}
	for name, e := range old {
		if f.known[name] == nil && !e.seen && time.Since(e.at) < trusted {
			f.known[name] = e
		}
	}
	for name := range f.waiting {
		f.wake(name)
	}
}

func (f *feed) upsert(ctx context.Context, dm *nnf.DataMovement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if have := f.known[dm.Name]; have != nil && newer(have.dm, dm) {
		have.seen = true
		return
	}
	f.known[dm.Name] = &entry{dm: dm, seen: true}
	f.wake(dm.Name)
}

func (f *feed) remove(ctx context.Context, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() == nil {
		delete(f.known, name)
		f.wake(name)
	}
}

// learn takes what a request has returned, so that nobody is told an older state
// afterwards.
func (f *feed) learn(dm *nnf.DataMovement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil || dm.Labels[api.LabelInitiator] != f.node {
		return
	}
	have := f.known[dm.Name]
	if have != nil && have.dm.UID == dm.UID && have.dm.ResourceVersion == dm.ResourceVersion {
		have.at = time.Now() // one copy of each object, however many calls have read it
		return
	}
	if have == nil || newer(dm, have.dm) || have.dm.ResourceVersion == dm.ResourceVersion {
		f.known[dm.Name] = &entry{dm: dm, seen: have != nil && have.seen, at: time.Now()}
		f.wake(dm.Name)
	}
}

// forget drops what a request has found missing. Only news wake: who is woken
// looks again.
func (f *feed) forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.known[name]; known {
		delete(f.known, name)
		f.wake(name)
	}
}

// look wakes whoever waits for a movement of which something else than its
// object has changed.
func (f *feed) look(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake(name)
}

// get returns what is known of a movement, nil when the API server must be
// asked. Nobody may change it.
func (f *feed) get(name string) *nnf.DataMovement {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.known[name]
	if e == nil || !e.seen && time.Since(e.at) >= trusted {
		return nil
	}
	return e.dm
}

// notify sends to ch, which has room for one, when one of the movements changes
// or is gone, until stop.
func (f *feed) notify(ch chan<- struct{}, names ...string) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		if f.waiting[name] == nil {
			f.waiting[name] = make(map[chan<- struct{}]struct{})
		}
		f.waiting[name][ch] = struct{}{}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, name := range names {
			delete(f.waiting[name], ch)
			if len(f.waiting[name]) == 0 {
				delete(f.waiting, name)
			}
		}
	}
}

// wake is called under mu.
func (f *feed) wake(name string) {
	for ch := range f.waiting[name] {
		select {
		case ch <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}

// newer tells that a is a later state than b of the same object. Versions that
// cannot be compared are in the order in which they came.
func newer(a, b *nnf.DataMovement) bool {
	if a.UID != b.UID {
		return false
	}
	x, err1 := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, err2 := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return err1 == nil && err2 == nil && x > y
}
