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
	// linger is how long the watch continues after the last call that followed a
	// movement: clients poll about every second.
	linger = 10 * time.Second
	// trusted is how long an object that was read by a request, and that the watch has
	// not delivered yet, is used: the initial state of a watch can be slightly outdated.
	trusted = 5 * time.Second
	// staleAfter is how long a watch may deliver nothing, because it is lost or has not
	// started, before the movements with waiters are read one by one. It is also the
	// minimum time between two reads of one movement, plus up to half of it at random.
	staleAfter = 5 * time.Second
	// pollPause is the pause between two of these reads, plus up to half of it at
	// random: together they take a fifth of the daemon's default requests per second.
	pollPause = 100 * time.Millisecond
	// versionRetry is the pause before a failed watch is started again.
	versionRetry = 5 * time.Second
)

// feed caches this node's movements of one namespace while a request follows one of
// them.
type feed struct {
	api       *apiServer
	namespace string
	node      string
	log       *slog.Logger
	enter     func() // the watch starts: the daemon is not idle
	leave     func() // the watch ends
	status    *statusLine

	mu      sync.Mutex
	users   int
	cancel  context.CancelFunc // nil: no watch
	ended   chan struct{}      // closed when the watch's goroutine has returned
	timer   *time.Timer
	stopped bool
	known   map[string]*entry
	waiting map[string]*waiting // by the movement's name
	down    bool                // the watch is lost, and this was logged
	trouble error               // the last logged error
	stale   time.Time           // since when the watch shows nothing; zero: it shows the current state
	lost    chan struct{}       // buffers one value: stale is set
}

// waiting has the waiters of a movement.
type waiting struct {
	ch   map[chan<- struct{}]struct{}
	uid  uint32    // its owner
	read time.Time // when it was last read because the watch was stale
}

type entry struct {
	dm   *nnf.DataMovement
	seen bool      // delivered by the watch; otherwise read by a request
	at   time.Time // when the request read it
}

// follow keeps the watch running until release is called.
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
		f.setStale(true)
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

// end ends the watch. The caller holds mu.
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

// stop ends the watch permanently and waits for its goroutine.
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
	reads.Go(func() { f.pollStale(ctx) })
	defer reads.Wait()
	o := kube.WatchOptions{Selector: api.LabelInitiator + "=" + f.node, OnState: func(st kube.State) { f.state(ctx, st) }}
	for ctx.Err() == nil {
		err := daemon.Safely(func() error {
			return f.api.watch(ctx, f.namespace, o, kube.Handler[nnf.DataMovement]{
				Replace: func(items []*nnf.DataMovement) { f.replace(ctx, items) },
				Upsert:  func(dm *nnf.DataMovement) { f.upsert(ctx, dm) },
				Delete:  func(_, name string) { f.remove(ctx, name) },
				// Requests for the object report the error.
				Malformed: func(_, name string, _ error) { f.remove(ctx, name) },
			})
		})
		if ctx.Err() != nil {
			return
		}
		f.state(ctx, kube.State{LastError: err})
		if errors.Is(err, kube.ErrVersionGone) {
			f.api.versions.Forget(kindMovement.resource())
		}
		kube.Pause(ctx, versionRetry)
	}
}

// state logs the loss of the watch, once for each kind of error, and its recovery.
func (f *feed) state(ctx context.Context, s kube.State) {
	f.mu.Lock()
	if ctx.Err() != nil { // another watch may have started
		f.mu.Unlock()
		return
	}
	was, logged := f.down, f.trouble
	f.down, f.trouble = !s.Connected, s.LastError
	f.setStale(f.down)
	f.status.watch(f.namespace, f.down)
	f.mu.Unlock()
	switch {
	case !s.Connected && !(was && kube.SameKind(logged, s.LastError)):
		f.log.Warn("the watch on the data movements failed; retrying", "namespace", f.namespace, "error", s.LastError, daemon.EventID(eventFollow))
	case s.Connected && was:
		f.log.Info("the watch on the data movements works again", "namespace", f.namespace, daemon.EventID(eventFollow))
	}
}

// setStale sets whether the watch delivers nothing. The caller holds mu.
func (f *feed) setStale(is bool) {
	switch {
	case !is:
		f.stale = time.Time{}
	case f.stale.IsZero():
		f.stale = time.Now()
		select {
		case f.lost <- struct{}{}:
		default:
		}
	}
}

// pollStale reads the movements with waiters while the watch is stale, so that waits
// still end. It alternates between users, and between the movements of each user.
func (f *feed) pollStale(ctx context.Context) {
	for {
		select {
		case <-f.lost:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			name, stale := f.nextPoll(time.Now())
			if !stale {
				break
			}
			if name != "" {
				f.readOne(ctx, name)
			}
			kube.Pause(ctx, pollPause+rand.N(pollPause/2))
		}
	}
}

// nextPoll returns the next movement to read, empty if none is due, and whether the
// watch is stale.
func (f *feed) nextPoll(now time.Time) (name string, stale bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stale.IsZero() {
		return "", false
	}
	if now.Sub(f.stale) < staleAfter {
		return "", true
	}
	served := make(map[uint32]time.Time) // when a movement of the user was last read
	for _, w := range f.waiting {
		if w.read.After(served[w.uid]) {
			served[w.uid] = w.read
		}
	}
	var best *waiting
	for n, w := range f.waiting {
		if now.Sub(w.read) < staleAfter {
			continue
		}
		if best == nil || served[w.uid].Before(served[best.uid]) || w.uid == best.uid && w.read.Before(best.read) {
			name, best = n, w
		}
	}
	if best != nil {
		best.read = now.Add(rand.N(staleAfter / 2))
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
	f.setStale(false)
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

// learn stores the state that a request has returned, so that later calls do not
// return an older state.
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
		have.at = time.Now() // unchanged: a waiter woken by its own read would read forever
	case have == nil || newer(dm, have.dm):
		f.known[dm.Name] = &entry{dm: dm, seen: same && have.seen, at: time.Now()}
		f.wake(dm.Name)
	}
}

// forget drops a movement that a request has not found. It wakes the waiters only if
// this is a change, because they read again.
func (f *feed) forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.known[name]; known {
		delete(f.known, name)
		f.wake(name)
	}
}

// look wakes the waiters of a movement after a change outside its object.
func (f *feed) look(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake(name)
}

// get returns the cached movement, or nil if it must be read from the API server. The
// caller must not change it.
func (f *feed) get(name string) *nnf.DataMovement {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.known[name]
	if e == nil || time.Since(e.at) >= trusted && (!e.seen || !f.stale.IsZero() && time.Since(f.stale) >= staleAfter) {
		return nil
	}
	return e.dm
}

// last returns the last state that the watch has delivered, even if it is outdated, for
// use when the API server is unavailable.
func (f *feed) last(name string) *nnf.DataMovement {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.known[name]; e != nil && e.seen {
		return e.dm
	}
	return nil
}

// keep marks dm as current, because no later state is available.
func (f *feed) keep(dm *nnf.DataMovement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.known[dm.Name]; e != nil && e.dm == dm {
		e.at = time.Now()
	}
}

// notify sends to ch, which buffers one value, when one of a user's movements changes
// or is deleted, until stop is called.
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

// wake notifies the waiters of a movement. The caller holds mu.
func (f *feed) wake(name string) {
	w := f.waiting[name]
	if w == nil {
		return
	}
	for ch := range w.ch {
		select {
		case ch <- struct{}{}:
		default: // already notified
		}
	}
}

// newer reports whether a is a later state than b, of the same object or of an earlier
// object with that name: resource versions of one kind increase. If versions cannot be
// compared, it returns false, so that the order of arrival applies.
func newer(a, b *nnf.DataMovement) bool {
	x, err1 := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, err2 := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return err1 == nil && err2 == nil && x > y
}
