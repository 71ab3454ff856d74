package kube

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// session lists if it must and then watches once. It returns nil when the
// watch ended in time, errEnded when the server ended it early.
func (w *watcher) session(ctx context.Context) error {
	if w.needList && !w.streamList {
		if err := w.list(ctx); err != nil {
			return err
		}
	}
	return w.watch(ctx)
}

func (w *watcher) list(ctx context.Context) error {
	what := w.what
	what.verb = "list"
	l, err := w.c.list(ctx, what, w.listFrom, w.o.Selector, 0)
	if err != nil && lostPosition(err) && w.listFrom != "" {
		w.listFrom = ""
		l, err = w.c.list(ctx, what, "", w.o.Selector, 0)
	}
	if err != nil {
		return err
	}
	w.synced(l.Items, l.Metadata.ResourceVersion)
	return nil
}

func (w *watcher) synced(items []stdjson.RawMessage, rv string) {
	w.needList, w.rv, w.stuck = false, rv, 0
	w.sink.replace(items)
	w.state.up(true)
}

// watch sends one watch request and consumes it to its end.
func (w *watcher) watch(ctx context.Context) error {
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
	if w.needList {
		if rv = w.listFrom; rv == "0" {
			rv = "" // the newest state is what a stream gives by default
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
		if w.needList && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)) {
			w.streamList = false // an old server
		}
		if context.Cause(ctx) == errNoHeaders {
			err = errNoHeaders
		}
		return w.c.explain(ctx, w.what, err)
	}
	defer body.Close()
	headers.Stop()
	w.opened = time.Now()
	// A server that accepts watches and then fails each is not connected.
	if !w.needList && w.stuck < 2 && w.short <= 2 {
		w.state.up(false)
	}
	// The one timer of a running watch. It is pushed on whenever something
	// arrives, so it fires only when something is wrong.
	guard := time.AfterFunc(limit+w.c.times.grace, func() { cancel(errSilent) })
	defer guard.Stop()
	err = w.consume(newFrames(body), func() { guard.Reset(min(w.c.times.silence, limit+w.c.times.grace-time.Since(w.opened))) })
	switch {
	case context.Cause(ctx) == errSilent:
		return w.broken(errSilent)
	case errors.Is(err, io.EOF) && time.Since(w.opened) >= limit-time.Second:
		return nil
	case errors.Is(err, io.EOF):
		return errEnded
	}
	return w.broken(err)
}

// consume feeds the events of one watch to the sink. alive is called for each
// once the server is known to send bookmarks.
func (w *watcher) consume(f *frames, alive func()) error {
	var initial []stdjson.RawMessage
	held := 0
	bookmarks := false
	for {
		ev, err := f.next()
		if err != nil {
			return err
		}
		var rv string
		switch ev.Type {
		case "ADDED", "MODIFIED":
			if w.needList {
				if held += len(ev.Object); held > maxAnswer {
					return errInitial
				}
				initial = append(initial, ev.Object)
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
			if ev.Type == "DELETED" {
				w.sink.remove(h.Metadata.Namespace, h.Metadata.Name)
				break
			}
			bookmarks = true
			if w.needList && h.endsInitialEvents() {
				w.synced(initial, rv)
				initial = nil
			}
		case "ERROR":
			return errorOf(ev.Object)
		default:
			return fmt.Errorf("%w: unknown type %q", errBadFrame, clip(ev.Type))
		}
		if rv != "" {
			w.rv = rv
		}
		w.stuck, w.short = 0, 0
		w.state.up(false)
		if bookmarks {
			alive()
		}
	}
}

// broken explains what ended a watch that had been accepted.
func (w *watcher) broken(err error) error {
	if kindOf(err) != kindConnection {
		return w.c.explain(context.Background(), w.what, err)
	}
	return &Error{err: err, text: fmt.Sprintf("%s: the watch on API server %s broke: %s", w.what, w.c.host, clip(err.Error()))}
}
