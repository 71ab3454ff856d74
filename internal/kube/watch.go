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

// WatchOptions are the options of a watch.
type WatchOptions struct {
	// Selector is a label selector, which the server applies.
	Selector string
	// OnState is called from Watch's goroutine when the state changes, not at each retry.
	OnState func(State)
}

const (
	// silence is how long a watch may be without events after the server has sent
	// bookmarks, which come about once a minute. A longer silence means that a device on
	// the network acknowledges data and drops it.
	silence = 5 * time.Minute
	// grace is the additional time for headers and for the end of a watch.
	grace = time.Minute
	// maxStuck is how often a watch may fail at the same position because of what the
	// server sends, before the watch drops the position.
	maxStuck = 5
	// maxCut is how often a streamed initial state may be incomplete before the watch
	// requests the state without a stream.
	maxCut = 3
	// noStreamFor is how long no streaming list is requested from a server that has
	// rejected one. The server may be upgraded later.
	noStreamFor = time.Hour
)

var (
	errSilent    = errors.New("the watch stopped delivering events")
	errShort     = errors.New("the API server ends each watch immediately")
	errNoHeaders = errors.New("the API server did not respond to the watch request")
	errInitial   = errors.New("the initial state is too large")
	errNoInitial = errors.New("the API server did not complete the initial state of the watch")
	errOlder     = errors.New("the API server sent a state that is older than the previous one")
	// errNoStream means that the server cannot start a watch with the current objects.
	errNoStream = errors.New("the API server does not support streaming lists")
	// errEnded means that the server ended a watch before its time limit, which is not a
	// failure.
	errEnded = errors.New("the API server ended the watch")
)

// Watch reports the objects of a namespace ("" for all) to h, until ctx ends or the
// resource is no longer served. It returns the error of ctx or ErrVersionGone. After any
// other failure it retries with a random delay of at most 30 s (or the delay that the
// server requests, up to 60 s), and reports the failure through OnState.
//
// The initial list accepts any state in the server's cache (resourceVersion 0), which is
// cheap for the server. The state may be slightly stale, but the watch that starts from it
// delivers all later changes in order.
//
// After its regular end a watch continues from its position. After any other end (a lost
// connection, a restart of the server, an expired position) one request gets both the
// current objects and the events that follow: a streaming list (KEP-3157) that is not
// older than the position. If the server does not support it, Watch requests the events
// since the position, and a list only if the position has expired. Watch does not report
// a state that is older than the position, unless the state of the server itself is older
// (a restored backup).
func Watch[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns string, o WatchOptions, h Handler[T]) error {
	w := &watcher{
		c: c, o: o, what: op{verb: "watch", r: r, ns: ns},
		sink:  &typed[T, P]{h: h, log: c.o.Log, kind: r.Kind},
		state: tracker{on: o.OnState},
		delay: backoff{first: c.times.retry},
		away:  backoff{first: c.times.lost},
		busy:  backoff{first: c.times.busy},
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
	delay backoff // after other failures, and until the first state is complete
	away  backoff // after a lost watch or connection
	busy  backoff // while the server does not serve the lost watch

	lost          bool      // there is no position: the whole state is needed first
	from          string    // oldest acceptable resourceVersion of that state
	stream        bool      // get the whole state through the watch, if the server supports it
	plain         bool      // do not use a stream until the next success
	noStreamUntil time.Time // the server does not support streams; do not try before this time
	rv            string    // our position in the server's history
	opened        time.Time // when the running watch was accepted
	stuck         int       // failures because of content at this position
	short         int       // consecutive watches that ended early
	cuts          int       // consecutive streamed initial states that were incomplete
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
			w.busy.reset()
			w.short = 0
		}
		switch {
		case err == nil:
			// The server ended the watch at the requested time.
			w.stream = w.stream && w.lost
			continue
		case errors.Is(err, errNoStream):
			w.c.o.Log.Debug("the API server does not support streaming lists; using plain lists", "resource", w.what.r.String(), "error", err)
			continue
		case lostPosition(err):
			w.c.o.Log.Debug("the position of the watch has expired; requesting all objects again", "resource", w.what.r.String(), "error", err)
			w.relist(tooLarge(err))
		case errors.Is(err, errEnded):
			// The server ends watches early when it shuts down or sheds load. It is a
			// failure only if this is repeated.
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
		switch {
		case w.rv == "":
		case errors.Is(err, errEnded) || kindOf(err) == kindConnection:
			delay = &w.away
		case busy(err):
			delay = &w.busy
		}
		wait := delay.next(err)
		w.c.o.Log.Debug("the watch ended; retrying", "resource", w.what.r.String(), "delay", wait.Round(time.Millisecond), "error", err)
		Pause(ctx, wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// relist drops the position. The next state must not be older than the last one. If ahead
// is set, the server's history ends before our position, so the next state is the newest
// one.
func (w *watcher) relist(ahead bool) {
	if w.lost || ahead {
		w.from = ""
	} else {
		w.from = w.rv
	}
	w.lost, w.stuck = true, 0
}

// lostPosition reports whether err means that the server cannot continue from our
// resourceVersion: its history starts later (410) or, after a restore, ends earlier.
func lostPosition(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || tooLarge(err) || errors.Is(err, errOlder)
}

// tooLarge reports whether err means that the server's history ends before our
// resourceVersion.
func tooLarge(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// refusesStream reports whether err means that the server does not support, or does not
// allow, a watch that starts with the current objects.
func refusesStream(err error) bool {
	switch code := kindOf(err); code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusGone, http.StatusTooManyRequests:
		return false
	default:
		return code >= 400 && code < 500
	}
}

// busy reports whether err is a response that a starting or overloaded server, or a load
// balancer without a server, sends.
func busy(err error) bool {
	switch kindOf(err) {
	case http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// fromContent reports whether err was caused by what the server has sent, which may happen
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

// State is the state of a watch.
type State struct {
	// Connected means that the last request succeeded.
	Connected bool
	// Synced means that Handler.Replace was called at least once. It stays true while the
	// server is not available.
	Synced bool
	// Since is the time when Connected last changed.
	Since time.Time
	// LastError is the last failure. It is kept after reconnecting, for messages.
	LastError error
}

// tracker calls its listener when the state changes: connected, disconnected, or another
// kind of failure. It does not report retries that fail in the same way.
type tracker struct {
	on    func(State)
	now   State
	known bool // the listener has been called
}

func (t *tracker) notify() {
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
		t.notify()
	}
}

// down records a failure.
func (t *tracker) down(err error) {
	change := !t.known || t.now.Connected || !SameKind(err, t.now.LastError)
	if !t.known || t.now.Connected {
		t.now.Connected, t.now.Since = false, time.Now()
	}
	t.now.LastError = err
	if change {
		t.notify()
	}
}

// retryAfterCap bounds the delay that a server may request.
const retryAfterCap = 60 * time.Second

// healthyAfter is how long a watch must have lasted to reset the delays. With a server that
// fails repeatedly they stay long.
const healthyAfter = 30 * time.Second

// span is a range of delays, from least to least + width.
type span struct{ least, width time.Duration }

// Delays before the second attempt. Later ones are twice as long as those before them, up
// to longest.
var (
	// afterFailure is the delay after a failed request.
	afterFailure = span{400 * time.Millisecond, 800 * time.Millisecond}
	// afterLoss is the delay after the end of a running watch, and while the server cannot
	// be reached. When a server restarts, all nodes lose their watches at the same moment:
	// with this width, less than a tenth of all nodes connect within one second, and most of
	// them find a server that is ready.
	afterLoss = span{3 * time.Second, 22 * time.Second}
	// afterBusy is the delay while a server responds, but cannot serve the lost watch: in
	// its first seconds it cannot check credentials yet (401) and has not filled its caches
	// (429).
	afterBusy = span{1500 * time.Millisecond, 4500 * time.Millisecond}
	longest   = span{12 * time.Second, 18 * time.Second}
)

// backoff is a sequence of delays.
type backoff struct{ first, now span }

func (b *backoff) reset() { b.now = span{} }

// next returns the delay after err.
func (b *backoff) next(err error) time.Duration {
	if b.now == (span{}) {
		b.now = b.first
	} else {
		b.now = span{min(2*b.now.least, longest.least), min(2*b.now.width, longest.width)}
	}
	d := b.now
	if asked, ok := apierrors.SuggestsClientDelay(err); ok {
		// All clients may have received the same number of seconds.
		d.least = max(d.least, min(time.Duration(asked)*time.Second, retryAfterCap))
	}
	return d.least + rand.N(d.width)
}

// Pause waits for d or until ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
