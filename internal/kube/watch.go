package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WatchOptions narrows and observes a watch.
type WatchOptions struct {
	// Selector is a label selector, applied by the server.
	Selector string
	// OnState is called from Watch's goroutine when the state changes, not
	// for each retry.
	OnState func(State)
}

const (
	// silence is how long a watch may be quiet once the server has sent bookmarks,
	// which come about once a minute. After that, something on the way discards
	// data while it acknowledges it.
	silence = 5 * time.Minute
	// grace is what a server may be late with headers or with ending a watch.
	grace = time.Minute
	// maxStuck is how often a watch may fail at the same position by what the
	// server sends before the position itself is given up.
	maxStuck = 5
	// maxCut is how often a streamed initial state may be cut short before the
	// state is asked for without a stream.
	maxCut = 3
	// noStreamFor is how long a server that refused a streaming list is not
	// asked for one again. It may be upgraded meanwhile.
	noStreamFor = time.Hour
)

var (
	errSilent    = errors.New("the watch went silent")
	errShort     = errors.New("the API server ends the watch at once")
	errNoHeaders = errors.New("the API server does not answer the watch request")
	errInitial   = errors.New("the initial state is larger than we are ready to hold")
	errNoInitial = errors.New("the API server does not complete the initial state of the watch")
	errOlder     = errors.New("the API server sent a state that is older than what it sent before")
	// errNoStream: the server cannot start a watch with the current objects.
	errNoStream = errors.New("the API server does not support streaming lists")
	// errEnded is not a failure: the server ended a watch before its time limit.
	errEnded = errors.New("the API server ended the watch")
)

// Watch reports the objects of a namespace ("" for all) to h, until ctx ends or the
// resource is no longer served. It returns ctx's error or ErrVersionGone. Every other
// failure is retried after a jittered delay of at most 30 s (or the delay that the
// server asks for, up to 60 s) and reported through OnState.
//
// The initial list accepts any state in the server's cache (resourceVersion 0). That
// is cheap for the server. The state may be some moments old, but the watch that
// starts from it delivers all later changes, in order.
//
// After its regular end a watch continues from its position. After any other end (a
// broken connection, a restart of the server, a position that is no longer known) one
// request gets both the current objects and the events that follow: a streaming list
// (KEP-3157) that is not older than the position. If the server does not support it,
// Watch requests the events since the position, and a list only if the server no
// longer knows the position. A state older than the position is not reported, unless
// the server itself has gone back in time (a restored backup).
func Watch[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns string, o WatchOptions, h Handler[T]) error {
	w := &watcher{
		c: c, o: o, what: op{verb: "watch", r: r, ns: ns},
		sink:  &typed[T, P]{h: h, log: c.o.Log, kind: r.Kind},
		state: tracker{on: o.OnState},
		delay: backoff{first: c.times.retry},
		away:  backoff{first: c.times.lost},
		lost:  true, from: "0",
	}
	if _, err := w.what.path(); err != nil {
		return err
	}
	return w.run(ctx)
}

// watcher is the state of one Watch. It is used by one goroutine.
type watcher struct {
	c     *Client
	o     WatchOptions
	what  op
	sink  sink
	state tracker
	delay backoff // after an answer, and until the first state is there
	away  backoff // after the loss of the connection

	lost   bool      // there is no position: the whole state must come first
	from   string    // resourceVersion that this state must not be older than
	stream bool      // get the whole state through the watch, if the server can
	plain  bool      // not by a stream until the next success
	never  time.Time // the server cannot stream; ask again after this
	rv     string    // our position in the server's history
	opened time.Time // when the running watch was accepted
	stuck  int       // failures by content at this position
	short  int       // watches that ended at once, in a row
	cuts   int       // streamed initial states that were cut, in a row
}

func (w *watcher) run(ctx context.Context) error {
	for {
		w.opened = time.Time{}
		err := w.session(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrVersionGone):
			w.state.down(err)
			return err
		}
		if !w.opened.IsZero() && time.Since(w.opened) >= healthyAfter {
			w.delay.reset()
			w.away.reset()
			w.short = 0
		}
		switch {
		case err == nil:
			// The server ended the watch when we had asked it to.
			w.stream = w.stream && w.lost
			continue
		case errors.Is(err, errNoStream):
			w.c.o.Log.Debug("the API server does not support streaming lists, asking without", "resource", w.what.r.String(), "error", err)
			continue
		case lostPosition(err):
			w.c.o.Log.Debug("the position of the watch is gone, getting all objects again", "resource", w.what.r.String(), "error", err)
			w.relist(tooLarge(err))
		case errors.Is(err, errEnded):
			// The server ends watches early when it shuts down or sheds
			// load: no failure unless it keeps doing so.
			if w.short++; w.short > 2 {
				w.state.down(w.broken(errShort))
			}
		default:
			if fromContent(err) {
				if w.stuck++; w.stuck >= maxStuck {
					w.relist(false)
				}
			}
			w.state.down(err)
		}
		if w.rv != "" {
			// The server may have restarted and forgotten our position.
			w.stream = true
		}
		delay := &w.delay
		if w.rv != "" && kindOf(err) == kindConnection {
			delay = &w.away
		}
		Pause(ctx, delay.next(err))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// relist gives up the position. The next state must not be older than what was
// seen; when even that is impossible, because the server's history ends before
// it, the newest one is asked for.
func (w *watcher) relist(ahead bool) {
	if w.lost || ahead {
		w.from = ""
	} else {
		w.from = w.rv
	}
	w.lost, w.stuck = true, 0
}

// lostPosition reports that the server cannot continue from our resourceVersion:
// its history is shorter (410), or, after a restore, older (too large).
func lostPosition(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || tooLarge(err) || errors.Is(err, errOlder)
}

// tooLarge reports that the server's history ends before our resourceVersion.
func tooLarge(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// refusesStream reports that the server does not know, or does not allow, a watch
// that starts with the current objects.
func refusesStream(err error) bool {
	switch code := kindOf(err); code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusGone, http.StatusTooManyRequests:
		return false
	default:
		return code >= 400 && code < 500
	}
}

// fromContent reports that the server answered, but with something that may come
// again at the same position.
func fromContent(err error) bool {
	if errors.Is(err, errBadFrame) || errors.Is(err, errFrameTooBig) {
		return true
	}
	switch kindOf(err) {
	case http.StatusBadRequest, http.StatusInternalServerError, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// State says how a watch is doing.
type State struct {
	// Connected: the last request succeeded.
	Connected bool
	// Synced: Handler.Replace was called at least once. It stays true while
	// the server is away; what the caller knows is then merely old.
	Synced bool
	// Since is when Connected last changed.
	Since time.Time
	// LastError is the latest failure; it stays after reconnecting, so that
	// the message can say what was wrong.
	LastError error
}

// tracker calls its listener when the state changes: connected, lost, another
// kind of failure, connected again. Retries that fail the same way are silent.
type tracker struct {
	on    func(State)
	now   State
	known bool // the listener has heard something
}

func (t *tracker) tell() {
	t.known = true
	if t.on != nil {
		t.on(t.now)
	}
}

// up records a success.
func (t *tracker) up(synced bool) {
	change := !t.known || !t.now.Connected || (synced && !t.now.Synced)
	if !t.known || !t.now.Connected {
		t.now.Connected, t.now.Since = true, time.Now()
	}
	t.now.Synced = t.now.Synced || synced
	if change {
		t.tell()
	}
}

// down records a failure.
func (t *tracker) down(err error) {
	change := !t.known || t.now.Connected || !SameTrouble(err, t.now.LastError)
	if !t.known || t.now.Connected {
		t.now.Connected, t.now.Since = false, time.Now()
	}
	t.now.LastError = err
	if change {
		t.tell()
	}
}

// Delays between attempts: 0.8 s, doubled each time, each drawn from half to
// one and a half of that, never above 30 s. The first one is jittered too:
// when an API server restarts, all nodes lose their watch in the same moment.
// After the loss of the connection of a running watch they start with 3 s: most
// likely the server restarts, and in its first second it accepts connections
// but cannot check credentials yet (401) and has not filled its caches (429).
const (
	backoffFirst = 800 * time.Millisecond
	backoffLost  = 3 * time.Second
	backoffBase  = 24 * time.Second
	backoffCap   = 30 * time.Second
	// retryAfterCap bounds what a server may ask for.
	retryAfterCap = 60 * time.Second
	// healthyAfter is how long a watch must have lasted to start again from
	// the first delay; a flapping server keeps the long ones.
	healthyAfter = 30 * time.Second
)

type backoff struct{ first, base time.Duration }

func (b *backoff) reset() { b.base = 0 }

// next returns how long to wait after err.
func (b *backoff) next(err error) time.Duration {
	if b.base == 0 {
		b.base = b.first
	} else {
		b.base = min(2*b.base, backoffBase)
	}
	d := min(b.base/2+rand.N(b.base), backoffCap)
	if err != nil {
		if asked, ok := apierrors.SuggestsClientDelay(err); ok && asked > 0 {
			// Spread above what was asked, so that not all come at once.
			least := min(time.Duration(asked)*time.Second, retryAfterCap)
			d = max(d, least+rand.N(b.first))
		}
	}
	return d
}

// Pause waits for d, or returns early when ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
