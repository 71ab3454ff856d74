package kube

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// session lists if necessary and then watches once. It returns nil if the watch ended
// after its time limit, and errEnded if the server ended it earlier.
func (w *watcher) session(ctx context.Context) error {
	stream := w.stream && !w.plain && time.Now().After(w.noStreamUntil)
	if w.lost && !stream {
		if err := w.list(ctx); err != nil {
			return err
		}
	}
	err := w.watch(ctx, stream)
	if !stream || !w.stream || err == nil || ctx.Err() != nil {
		return err // includes a stream whose initial state was complete
	}
	switch {
	case refusesStream(err):
		w.noStreamUntil = time.Now().Add(noStreamFor)
		return fmt.Errorf("%w: %w", errNoStream, err)
	case lostPosition(err):
		w.plain = errors.Is(err, errOlder)
	case fromContent(err), errors.Is(err, errInitial), errors.Is(err, errNoInitial):
		w.plain = true
	case !w.opened.IsZero():
		w.cuts++
		w.plain = w.cuts >= maxCut
	}
	return err
}

func (w *watcher) list(ctx context.Context) error {
	what := w.what
	what.verb = "list"
	l, err := w.c.list(ctx, what, w.from, w.o.Selector, 0)
	if err != nil && lostPosition(err) && w.from != "" {
		w.from = ""
		l, err = w.c.list(ctx, what, "", w.o.Selector, 0)
	}
	if err != nil {
		return err
	}
	w.synced(l.Items, l.Metadata.ResourceVersion)
	return nil
}

func (w *watcher) synced(items []stdjson.RawMessage, rv string) {
	w.lost, w.stream, w.plain = false, false, false
	w.rv, w.stuck, w.cuts = rv, 0, 0
	w.sink.replace(items)
	w.state.up(true)
}

// watch sends one watch request and processes its events until it ends. With stream, the
// server sends all objects first.
func (w *watcher) watch(ctx context.Context, stream bool) error {
	path, err := w.what.path()
	if err != nil {
		return err
	}
	least := w.c.o.MinWatchTimeout
	limit := (least + rand.N(least)).Truncate(time.Second)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	headers := time.AfterFunc(w.c.o.Timeout+w.c.times.grace, func() { cancel(errNoHeaders) })
	defer headers.Stop()

	req := w.c.rest.Get().AbsPath(path).MaxRetries(0).
		Param("watch", "true").Param("allowWatchBookmarks", "true").Param("timeoutSeconds", seconds(limit))
	rv := w.rv
	if stream {
		if w.lost {
			rv = w.from
		}
		req.Param("sendInitialEvents", "true").Param("resourceVersionMatch", string(metav1.ResourceVersionMatchNotOlderThan))
	}
	if rv != "" {
		req.Param("resourceVersion", rv)
	}
	if w.o.Selector != "" {
		req.Param("labelSelector", w.o.Selector)
	}
	body, err := req.Stream(ctx)
	if err != nil {
		if context.Cause(ctx) == errNoHeaders {
			err = errNoHeaders
		}
		return w.c.explain(ctx, w.what, err)
	}
	defer body.Close()
	headers.Stop()
	w.opened = time.Now()
	// A server that accepts watches but ends each with a failure is not connected.
	if !stream && w.stuck < 2 && w.short <= 2 {
		w.state.up(false)
	}
	// The only timer of a running watch. Each event resets it, so it fires only if
	// something is wrong.
	guard := time.AfterFunc(limit+w.c.times.grace, func() { cancel(errSilent) })
	defer guard.Stop()
	var initial *initialState
	if stream {
		// A server that ignores sendInitialEvents would never complete the initial state.
		limit := time.AfterFunc(w.c.o.Timeout+w.c.times.grace, func() { cancel(errNoInitial) })
		defer limit.Stop()
		initial = newInitialState(rv, limit)
	}
	err = w.consume(newFrames(body), initial, func() { guard.Reset(min(w.c.times.silence, limit+w.c.times.grace-time.Since(w.opened))) })
	switch cause := context.Cause(ctx); {
	case cause == errNoInitial:
		return w.broken(errNoInitial)
	case cause == errSilent:
		return w.broken(errSilent)
	case errors.Is(err, io.EOF) && time.Since(w.opened) >= limit-time.Second:
		return nil
	case errors.Is(err, io.EOF):
		return errEnded
	}
	return w.broken(err)
}

// initialState collects the objects with which a watch starts. They are passed on together
// when the server reports that they are complete, so that a lost connection before that
// has no effect.
type initialState struct {
	least   string // oldest acceptable resourceVersion
	limit   *time.Timer
	names   []string // in the order of their events
	objects map[string]stdjson.RawMessage
	held    int
}

func newInitialState(least string, limit *time.Timer) *initialState {
	return &initialState{least: least, limit: limit, objects: map[string]stdjson.RawMessage{}}
}

// put adds an event that comes before the end of the initial state.
func (s *initialState) put(ev frame) error {
	h, err := headerOf(ev.Object)
	key := h.Metadata.Namespace + "/" + h.Metadata.Name
	if err != nil || h.Metadata.Name == "" {
		key = fmt.Sprint(len(s.names)) // decode reports it later
	}
	old, known := s.objects[key]
	s.held -= len(old)
	if ev.Type == "DELETED" {
		delete(s.objects, key)
		return nil
	}
	if s.held += len(ev.Object); s.held > maxAnswer {
		return errInitial
	}
	if !known {
		s.names = append(s.names, key)
	}
	s.objects[key] = ev.Object
	return nil
}

// items returns the objects of the complete state at resourceVersion rv.
func (s *initialState) items(rv string) ([]stdjson.RawMessage, error) {
	if older(rv, s.least) {
		return nil, fmt.Errorf("%w: %s, after %s", errOlder, clip(rv), s.least)
	}
	s.limit.Stop()
	out := make([]stdjson.RawMessage, 0, len(s.objects))
	for _, name := range s.names {
		if raw, ok := s.objects[name]; ok {
			out = append(out, raw)
			delete(s.objects, name) // a name is listed twice if the object was deleted and created again
		}
	}
	return out, nil
}

// older reports whether resource version a is older than b. Versions that are not numbers,
// which no known server sends, have no order.
func older(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX == nil && errY == nil && x < y
}

// consume passes the events of one watch to the sink. initial is nil, or collects the
// objects with which the watch starts. alive is called for each event after the server has
// sent a bookmark.
func (w *watcher) consume(f *frames, initial *initialState, alive func()) error {
	bookmarks := false
	for {
		ev, err := f.next()
		if err != nil {
			return err
		}
		var rv string
		switch ev.Type {
		case "ADDED", "MODIFIED":
			if initial != nil {
				if err := initial.put(ev); err != nil {
					return err
				}
				continue
			}
			if rv, err = w.sink.upsert(ev.Object); err != nil {
				return err
			}
		case "DELETED", "BOOKMARK":
			h, err := headerOf(ev.Object)
			if err != nil {
				return err
			}
			rv = h.Metadata.ResourceVersion
			switch {
			case initial == nil && ev.Type == "DELETED":
				w.sink.remove(h.Metadata.Namespace, h.Metadata.Name)
			case initial == nil:
				bookmarks = true
			case ev.Type == "DELETED":
				if err := initial.put(ev); err != nil {
					return err
				}
				continue
			case !h.endsInitialEvents():
				continue // the position is valid only from the end of the initial state on
			default:
				items, err := initial.items(rv)
				if err != nil {
					return err
				}
				initial, bookmarks = nil, true
				w.synced(items, rv)
			}
		case "ERROR":
			return errorOf(ev.Object)
		default:
			return fmt.Errorf("%w: unknown type %q", errBadFrame, clip(ev.Type))
		}
		if rv != "" {
			w.rv = rv
		}
		w.stuck, w.short, w.plain = 0, 0, false
		w.state.up(false)
		if bookmarks {
			alive()
		}
	}
}

// broken converts the error that ended an accepted watch.
func (w *watcher) broken(err error) error {
	if kindOf(err) != kindConnection {
		return w.c.explain(context.Background(), w.what, err)
	}
	return &Error{err: err, text: fmt.Sprintf("%s: the watch on API server %s failed: %s", w.what, w.c.host, clip(err.Error()))}
}
