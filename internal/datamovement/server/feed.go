package server

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
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
	// watch has not shown yet, is used: the watch may start with a state that is
	// some moments old.
	trusted = 5 * time.Second
	// blindAfter is how long a watch may be lost, or not have shown anything yet,
	// before the movements that are waited for are read one by one, and how often
	// each is read at most. Both are drawn from this to one and a half times this.
	blindAfter = 5 * time.Second
	// blindReads is the pause between two of these reads, likewise: together they
	// take a fifth of the requests per second that the daemon may make.
	blindReads = 100 * time.Millisecond
	// versionRetry is the pause after the served version went away.
	versionRetry = 5 * time.Second
)

// feed knows this node's movements of one namespace while a request follows one.
type feed struct {
	api       *apiServer
	namespace string
	node      string
	log       *slog.Logger
	enter     func() // something lives
	leave     func()
	status    *statusLine

	mu      sync.Mutex
	users   int
	cancel  context.CancelFunc // nil: no watch
	ended   chan struct{}      // closed when the watch's goroutine has returned
	timer   *time.Timer
	stopped bool
	known   map[string]*entry
	waiting map[string]*waiting // by the movement's name
	down    bool                // the watch was lost, which was logged
	trouble error               // the error that was logged last
	blind   time.Time           // since when the watch shows nothing; zero: it shows the current state
	lost    chan struct{}       // buffers one value: blind is set
}

// waiting holds the waiters of a movement.
type waiting struct {
	ch   map[chan<- struct{}]struct{}
	uid  uint32    // its owner
	read time.Time // when it was read last because the watch showed nothing
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
		f.setBlind(true)
		f.enter()
		f.status.watch(f.namespace, f.down)
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
		f.status.end(f.namespace)
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
	var reads sync.WaitGroup
	reads.Go(func() { f.readBlindly(ctx) })
	defer reads.Wait()
	o := kube.WatchOptions{Selector: api.LabelInitiator + "=" + f.node, OnState: func(st kube.State) { f.state(ctx, st) }}
	for ctx.Err() == nil {
		err := daemon.Safely(func() error {
			return f.api.watch(ctx, f.namespace, o, kube.Handler[nnf.DataMovement]{
				Replace: func(items []*nnf.DataMovement) { f.replace(ctx, items) },
				Upsert:  func(dm *nnf.DataMovement) { f.upsert(ctx, dm) },
				Delete:  func(_, name string) { f.remove(ctx, name) },
				// Requests report what is wrong with it.
				Malformed: func(_, name string, _ error) { f.remove(ctx, name) },
			})
		})
		if ctx.Err() != nil {
			return
		}
		f.state(ctx, kube.State{LastError: err})
		if errors.Is(err, kube.ErrVersionGone) {
			f.api.versions.Forget(api.GroupNNF)
		}
		kube.Pause(ctx, versionRetry)
	}
}

// state logs that the watch is lost, once for each kind of error, and once that it
// is back.
func (f *feed) state(ctx context.Context, s kube.State) {
	f.mu.Lock()
	if ctx.Err() != nil { // another watch may have started
		f.mu.Unlock()
		return
	}
	was, said := f.down, f.trouble
	f.down, f.trouble = !s.Connected, s.LastError
	f.setBlind(f.down)
	f.status.watch(f.namespace, f.down)
	f.mu.Unlock()
	switch {
	case !s.Connected && !(was && kube.SameTrouble(said, s.LastError)):
		f.log.Warn("lost sight of the data movements, trying again", "namespace", f.namespace, "error", s.LastError, daemon.EventID(eventFollow))
	case s.Connected && was:
		f.log.Info("data movements are in sight again", "namespace", f.namespace, daemon.EventID(eventFollow))
	}
}

// setBlind is called under mu.
func (f *feed) setBlind(is bool) {
	switch {
	case !is:
		f.blind = time.Time{}
	case f.blind.IsZero():
		f.blind = time.Now()
		select {
		case f.lost <- struct{}{}:
		default:
		}
	}
}

// readBlindly reads what is waited for while the watch does not show it, so that
// a wait ends all the same: users take turns, and so do the movements of each.
func (f *feed) readBlindly(ctx context.Context) {
	for {
		select {
		case <-f.lost:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			name, blind := f.nextBlind(time.Now())
			if !blind {
				break
			}
			if name != "" {
				f.readOne(ctx, name)
			}
			kube.Pause(ctx, blindReads+rand.N(blindReads/2))
		}
	}
}

// nextBlind returns the movement that is to be read, empty for none yet, and
// whether the watch shows nothing.
func (f *feed) nextBlind(now time.Time) (name string, blind bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blind.IsZero() {
		return "", false
	}
	if now.Sub(f.blind) < blindAfter {
		return "", true
	}
	served := make(map[uint32]time.Time) // when a movement of the user was read last
	for _, w := range f.waiting {
		if w.read.After(served[w.uid]) {
			served[w.uid] = w.read
		}
	}
	var best *waiting
	for n, w := range f.waiting {
		if now.Sub(w.read) < blindAfter {
			continue
		}
		if best == nil || served[w.uid].Before(served[best.uid]) || w.uid == best.uid && w.read.Before(best.read) {
			name, best = n, w
		}
	}
	if best != nil {
		best.read = now.Add(rand.N(blindAfter / 2))
	}
	return name, true
}

// readOne reads a movement and wakes its waiters if something has changed.
func (f *feed) readOne(ctx context.Context, name string) {
	dm := new(nnf.DataMovement)
	switch err := f.api.get(ctx, kindMovement, f.namespace, name, dm); {
	case err == nil:
		f.learn(dm)
	case kube.IsNotFound(err):
		f.forget(name)
		f.look(name)
	}
}

func (f *feed) replace(ctx context.Context, items []*nnf.DataMovement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	f.setBlind(false)
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
		if have.dm.UID == dm.UID {
			have.seen = true
		}
		return // a late event of an earlier state, or of an earlier object of that name
	}
	f.known[dm.Name] = &entry{dm: dm, seen: true}
	f.wake(dm.Name)
}

func (f *feed) remove(ctx context.Context, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	// An object that the watch has not shown yet is a later one of that name.
	if e := f.known[name]; e == nil || e.seen || time.Since(e.at) >= trusted {
		delete(f.known, name)
	}
	f.wake(name)
}

// learn takes the state that a request has returned, so that no caller gets an
// older one afterwards.
func (f *feed) learn(dm *nnf.DataMovement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil || dm.Labels[api.LabelInitiator] != f.node {
		return
	}
	have := f.known[dm.Name]
	same := have != nil && have.dm.UID == dm.UID
	switch {
	case same && have.dm.ResourceVersion == dm.ResourceVersion:
		have.at = time.Now() // no news: a waiter that was woken by its own read would read for ever
	case have == nil || newer(dm, have.dm):
		f.known[dm.Name] = &entry{dm: dm, seen: same && have.seen, at: time.Now()}
		f.wake(dm.Name)
	}
}

// forget drops what a request has found missing. Only a change wakes the waiters,
// because they look again.
func (f *feed) forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.known[name]; known {
		delete(f.known, name)
		f.wake(name)
	}
}

// look wakes the waiters of a movement of which something else than its object has
// changed.
func (f *feed) look(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake(name)
}

// get returns what is known of a movement, nil when the API server must be
// asked. The caller must not change it.
func (f *feed) get(name string) *nnf.DataMovement {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.known[name]
	if e == nil || time.Since(e.at) >= trusted && (!e.seen || !f.blind.IsZero() && time.Since(f.blind) >= blindAfter) {
		return nil
	}
	return e.dm
}

// last returns what was known last of a movement that the watch has shown, for
// when the API server cannot be asked either.
func (f *feed) last(name string) *nnf.DataMovement {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.known[name]; e != nil && e.seen {
		return e.dm
	}
	return nil
}

// keep says that no later state of a movement can be had now.
func (f *feed) keep(dm *nnf.DataMovement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.known[dm.Name]; e != nil && e.dm == dm {
		e.at = time.Now()
	}
}

// notify sends to ch, which buffers one value, when one of a user's movements
// changes or is gone, until stop.
func (f *feed) notify(ch chan<- struct{}, uid uint32, names ...string) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		if f.waiting[name] == nil {
			f.waiting[name] = &waiting{ch: make(map[chan<- struct{}]struct{}), uid: uid}
		}
		f.waiting[name].ch[ch] = struct{}{}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, name := range names {
			w := f.waiting[name]
			if delete(w.ch, ch); len(w.ch) == 0 {
				delete(f.waiting, name)
			}
		}
	}
}

// wake is called under mu.
func (f *feed) wake(name string) {
	w := f.waiting[name]
	if w == nil {
		return
	}
	for ch := range w.ch {
		select {
		case ch <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}

// newer tells that a is a later state than b, of the same object or of one that
// had its name before: the versions of one kind of objects count on. Versions that
// cannot be compared are in the order in which they came.
func newer(a, b *nnf.DataMovement) bool {
	x, err1 := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, err2 := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return err1 == nil && err2 == nil && x > y
}
