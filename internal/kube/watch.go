package kube

import (
	"context"
	"errors"
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
	// StreamList gets the initial state through the watch itself: one request
	// instead of two, but a server on which nothing happens may take some
	// 100 ms for it. Servers that cannot do it are asked for a list.
	StreamList bool
}

const (
	// silence is how long a watch may be quiet once the server has shown
	// (about once a minute) that it sends bookmarks: then something between
	// us swallows data while it acknowledges it.
	silence = 5 * time.Minute
	// grace is what a server may be late with headers or with ending a watch.
	grace = time.Minute
	// maxStuck is how often a watch may fail at the same position by what the
	// server sends before the position itself is given up.
	maxStuck = 5
)

var (
	errSilent    = errors.New("the watch went silent")
	errShort     = errors.New("the API server ends the watch at once")
	errNoHeaders = errors.New("the API server does not answer the watch request")
	errInitial   = errors.New("the initial state is larger than we are ready to hold")
	// errEnded is no failure: the server ended a watch before its time.
	errEnded = errors.New("the API server ended the watch")
)

// Watch keeps h told of the objects of a namespace ("" for all) until ctx ends
// or the resource is not served (ErrVersionGone); it returns nothing else.
// Whatever fails in between is retried with a jittered delay of at most 30 s
// (or what the server asks for, up to 60 s) and seen through OnState.
//
// The initial list allows any state that the server has at hand
// (resourceVersion 0): it is cheap for the server, and though it may be some
// moments old, the watch that starts from it delivers what came since, in
// order. A repeated list is never older than what was seen already.
func Watch[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns string, o WatchOptions, h Handler[T]) error {
	w := &watcher{
		c: c, o: o, what: op{verb: "watch", r: r, ns: ns},
		sink:     &typed[T, P]{h: h, log: c.o.Log, kind: r.Kind},
		state:    tracker{on: o.OnState},
		delay:    backoff{first: c.times.retry},
		needList: true, listFrom: "0", streamList: o.StreamList,
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
	delay backoff

	needList   bool
	listFrom   string // resourceVersion of the next list
	streamList bool
	rv         string    // our position in the server's history
	opened     time.Time // when the running watch was accepted
	stuck      int       // failures by content at this position
	short      int       // watches that ended at once, in a row
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
			w.short = 0
		}
		switch {
		case err == nil:
			continue // the server ended the watch when we had asked it to
		case lostPosition(err):
			w.c.o.Log.Debug("the position of the watch is gone, listing again", "resource", w.what.r.String(), "error", err)
			w.relist()
		case errors.Is(err, errEnded):
			// The server ends watches early when it shuts down or sheds
			// load: no failure unless it goes on like that.
			if w.short++; w.short > 2 {
				w.state.down(w.broken(errShort))
			}
		default:
			if fromContent(err) {
				if w.stuck++; w.stuck >= maxStuck {
					w.relist()
				}
			}
			w.state.down(err)
		}
		pause(ctx, w.delay.next(err))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// relist gives up the position. The next list must not be older than what was
// seen; when even that is impossible it asks for the newest state.
func (w *watcher) relist() {
	if w.needList {
		w.listFrom = ""
	} else {
		w.listFrom = w.rv
	}
	w.needList, w.stuck = true, 0
}

// lostPosition tells that the server cannot go on from our resourceVersion:
// its history is shorter (410), or, after a restore, older (too large).
func lostPosition(err error) bool {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		return true
	}
	return false
}

// fromContent tells that the server answered, but with something that may come
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
