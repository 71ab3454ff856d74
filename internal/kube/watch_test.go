package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

type handler = func(http.ResponseWriter, *http.Request)

func TestWatchListsOnceAndFollows(t *testing.T) {
	s := newServer(t)
	s.list = s.sendList("10", "a", "b")
	s.watch = []handler{sendFrames("hold", event("MODIFIED", "a", "11")+event("ADDED", "c", "12")+event("DELETED", "b", "13"))}
	v := s.start(s.dial(), WatchOptions{})
	for _, l := range []string{"replace a b", "up", "upsert a", "upsert c", "delete b"} {
		if got := <-v.lines; got != l {
			t.Fatalf("got %q, want %q", got, l)
		}
	}
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10]" {
		t.Errorf("requests: %s", got)
	}
}

// After any failure of a watch, one request gets the current objects, not older than the
// last position, and the events that follow.
func TestWatchFaults(t *testing.T) {
	status := func(code int, reason metav1.StatusReason, header ...string) handler {
		return func(w http.ResponseWriter, _ *http.Request) {
			if len(header) > 0 {
				w.Header().Set(header[0], header[1])
			}
			sendStatus(w, code, reason, "said the server", nil)
		}
	}
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	first := event("ADDED", "a", "11")
	tests := []struct {
		name    string
		watch   []handler // followed by one that sends z
		after   string    // the requests after the first list and watch
		failing bool      // the state must report a failure in between
	}{
		{"cut between events", []handler{sendFrames("cut", first)}, "stream 11", true},
		{"cut within an event", []handler{sendFrames("cut", first+`{"type":"ADDED","obj`)}, "stream 11", true},
		{"ended within an event", []handler{sendFrames("eof", first+`{"type":"ADDED","obj`)}, "stream 11", true},
		{"ended early", []handler{sendFrames("eof", first)}, "stream 11", false},
		{"ended immediately", []handler{sendFrames("eof", ""), sendFrames("eof", "")}, "stream 10 stream 10", false},
		{"ended immediately, repeatedly", []handler{sendFrames("eof", ""), sendFrames("eof", ""), sendFrames("eof", "")},
			"stream 10 stream 10 stream 10", true},
		{"bookmark moves the position", []handler{sendFrames("eof", first+event("BOOKMARK", "", "15"))}, "stream 15", false},
		{"reset before the response", []handler{sendFrames("eof", first), abort, abort}, "stream 11 stream 11 stream 11", true},
		{"429", []handler{sendFrames("eof", first), status(429, metav1.StatusReasonTooManyRequests)}, "stream 11 stream 11", true},
		{"503", []handler{status(503, metav1.StatusReasonServiceUnavailable), status(503, metav1.StatusReasonServiceUnavailable)},
			"stream 10 stream 10", true},
		{"500 to the stream too", []handler{status(500, metav1.StatusReasonInternalError), status(500, metav1.StatusReasonInternalError)},
			"stream 10 watch 10", true},
		{"403", []handler{sendFrames("eof", first), status(403, metav1.StatusReasonForbidden)}, "stream 11 stream 11", true},
		{"garbage", []handler{sendFrames("hold", first+"<html>\n")}, "stream 11", true},
		{"event without a type", []handler{sendFrames("hold", first+"{}\n")}, "stream 11", true},
		{"unknown type", []handler{sendFrames("hold", first+event("RENAMED", "a", "12"))}, "stream 11", true},
		{"too large", []handler{sendFrames("hold", first+`{"type":"ADDED","object":{"x":"`+strings.Repeat("x", maxFrame+10)+`"}}`)}, "stream 11", true},
		{"error event", []handler{sendFrames("hold", first+errorEvent(500, metav1.StatusReasonInternalError))}, "stream 11", true},
		{"error event, repeatedly", repeat(maxStuck, sendFrames("hold", errorEvent(500, metav1.StatusReasonInternalError))),
			"stream 10 watch 10 watch 10 watch 10 list 10 watch 10", true},
		{"410 as a response", []handler{sendFrames("eof", first), status(410, metav1.StatusReasonExpired)}, "stream 11 stream 11", false},
		{"410 as an event", []handler{sendFrames("hold", first+errorEvent(410, metav1.StatusReasonExpired))}, "stream 11", false},
		{"410 of old servers", []handler{sendFrames("hold", first+errorEvent(410, metav1.StatusReasonGone))}, "stream 11", false},
		{"410, and the server cannot stream", []handler{sendFrames("hold", first+errorEvent(410, metav1.StatusReasonExpired)),
			status(422, metav1.StatusReasonInvalid)}, "stream 11 list 11 watch 10", false},
		{"restart of a server that cannot stream", []handler{sendFrames("eof", first), status(400, metav1.StatusReasonBadRequest),
			status(410, metav1.StatusReasonExpired)}, "stream 11 watch 11 list 11 watch 10", false},
		{"cut within the initial state", []handler{sendFrames("eof", first), sendFrames("cut", event("ADDED", "b", "12"))},
			"stream 11 stream 11", true},
		{"cut within the initial state, repeatedly", append(repeat(1, sendFrames("eof", first)), repeat(maxCut, sendFrames("cut", event("ADDED", "b", "12")))...),
			"stream 11 stream 11 stream 11 watch 11", true},
		{"initial state that is older", []handler{sendFrames("eof", first), sendFrames("hold", event("ADDED", "old", "5")+initialEnd("9"))},
			"stream 11 list 11 watch 10", false},
		{"position ahead of a restored server", []handler{sendFrames("eof", first), sendFrames("hold", aheadEvent())}, "stream 11 stream ", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.watch = append(tt.watch, sendBoth(event("ADDED", "z", "20"), "20"))
			v := s.start(s.dial(), WatchOptions{})
			v.want(t, "up", "upsert", "down")
			want := "[list 0 watch 10 " + tt.after + "]"
			last := tt.after[strings.LastIndex(tt.after, "stream")+1:]
			seen := "replace z" // through a stream
			if strings.Contains(last, "watch") {
				seen = "upsert z"
			}
			if tt.failing {
				v.want(t, "down", "replace old", "replace b", "upsert b")
				v.want(t, seen, "replace old", "replace b", "upsert b")
			} else {
				v.want(t, seen, "down", "replace old")
			}
			if got := fmt.Sprint(s.requests()); got != want {
				t.Errorf("requests %s, want %s", got, want)
			}
		})
	}
}

// aheadEvent returns the error event of a server whose history ends before our position.
func aheadEvent() string {
	return `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":504,"reason":"Timeout","message":"Too large resource version",` +
		`"details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}]}}}` + "\n"
}

func repeat(n int, h handler) (out []handler) {
	for range n {
		out = append(out, h)
	}
	return out
}

func TestRelistIsNotOlder(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{sendFrames("hold", event("ADDED", "a", "11")+errorEvent(410, metav1.StatusReasonExpired)),
		refuseStream, sendFrames("hold", event("ADDED", "z", "40"))}
	calls := 0
	s.list = func(w http.ResponseWriter, r *http.Request) {
		switch calls++; calls {
		case 2: // the server was restored from a backup, so our position is newer than its state
			sendStatus(w, 504, metav1.StatusReasonTimeout, "Too large resource version", &metav1.StatusDetails{
				Causes: []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}})
		case 3:
			s.sendList("30", "b")(w, r)
		default:
			s.sendList("10")(w, r)
		}
	}
	v := s.start(s.dial(), WatchOptions{})
	v.want(t, "replace b", "down")
	v.want(t, "upsert z", "down")
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10 stream 11 list 11 list  watch 30]" {
		t.Errorf("requests: %s", got)
	}
}

func TestMalformedObjectIsSkipped(t *testing.T) {
	bad := strings.Replace(object("bad", "12"), `"node":"c1"`, `"node":7`, 1)
	s := newServer(t)
	s.list = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"metadata":{"resourceVersion":"10"},"items":[%s,%s,{},7]}`, bad, object("good", "9"))
	}
	s.watch = []handler{sendFrames("eof", `{"type":"MODIFIED","object":`+bad+"}\n"+event("MODIFIED", "good", "13")),
		sendBoth(event("ADDED", "good", "13")+`{"type":"ADDED","object":`+bad+"}\n"+`{"type":"ADDED","object":{}}`+"\n"+event("ADDED", "z", "20"), "20")}
	v := s.start(s.dial(), WatchOptions{})
	v.want(t, "malformed bad", "replace")
	v.want(t, "replace good")
	v.want(t, "malformed bad", "down")
	v.want(t, "upsert good", "down")
	v.want(t, "malformed bad", "down", "replace")
	v.want(t, "replace good z", "down")
	if n := s.count("stream 13"); n != 1 {
		t.Errorf("the position did not move past the bad object: %q", s.requests())
	}
}

func TestWatchVersionGone(t *testing.T) {
	missing := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "404 page not found", 404) }
	for _, where := range []string{"list", "watch"} {
		t.Run(where, func(t *testing.T) {
			s := newServer(t)
			s.watch = []handler{missing}
			if where == "list" {
				s.list = missing
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := Watch(ctx, s.dial(), clientMounts, "c1", WatchOptions{}, Handler[dws.ClientMount]{})
			if !errors.Is(err, ErrVersionGone) || IsNotFound(err) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), "v1alpha7") {
				t.Errorf("the error lacks the version: %v", err)
			}
		})
	}
}

func TestWatchEndsWithContext(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{sendFrames("hold", "")}
	v := s.start(s.dial(), WatchOptions{})
	v.want(t, "up")
	v.cancel()
	err := <-v.done
	v.done <- err
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestServerDownAtStart(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{sendFrames("hold", event("ADDED", "z", "20"))}
	addr := s.Listener.Addr().String()
	c := s.dial()
	s.CloseClientConnections()
	s.Close()
	v := s.start(c, WatchOptions{})
	v.want(t, "down unsynced")
	again := newServerAt(t, addr, s)
	v.want(t, "upsert z", "down")
	if got := fmt.Sprint(again.requests()); got != "[list 0 watch 10]" {
		t.Errorf("requests: %s", got)
	}
}

func TestSilentWatch(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{sendFrames("hold", event("BOOKMARK", "", "15")), sendFrames("hold", event("ADDED", "z", "20")+initialEnd("20"))}
	c := s.dial()
	c.times.silence = 20 * time.Millisecond
	v := s.start(c, WatchOptions{})
	v.want(t, "down", "replace z")
	v.want(t, "replace z", "upsert")
	v.cancel()
	if got := fmt.Sprint(s.requests()); !strings.HasPrefix(got, "[list 0 watch 10 stream 15") {
		t.Errorf("requests: %s", got)
	}
}

func TestNoResponseToWatch(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		sendFrames("hold", event("ADDED", "z", "20"))}
	c := s.dial(func(o *Options) { o.Timeout = 50 * time.Millisecond })
	c.times.grace = 50 * time.Millisecond
	v := s.start(c, WatchOptions{})
	v.want(t, "down", "upsert")
	v.want(t, "upsert z", "replace")
}

// A watch that the server ends at the requested time is renewed immediately.
func TestWatchEndsInTime(t *testing.T) {
	s := newServer(t)
	end := make(chan struct{})
	s.watch = []handler{func(w http.ResponseWriter, r *http.Request) {
		sendFrames("eof", event("ADDED", "a", "11"))(w, r)
		<-end
	}, sendFrames("hold", event("ADDED", "z", "20"))}
	c := s.dial(func(o *Options) { o.MinWatchTimeout = time.Second })
	hour := span{time.Hour, time.Hour} // any delay would fail the test
	c.times.retry, c.times.lost, c.times.busy = hour, hour, hour
	v := s.start(c, WatchOptions{})
	v.want(t, "upsert a")
	time.AfterFunc(1100*time.Millisecond, func() { close(end) })
	v.want(t, "upsert z", "down", "replace")
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10 watch 11]" {
		t.Errorf("requests: %s", got)
	}
}

func refuseStream(w http.ResponseWriter, _ *http.Request) {
	sendStatus(w, 422, metav1.StatusReasonInvalid, "sendInitialEvents is forbidden", nil)
}

// Before the end of the initial state, the server may already send changes. Only the
// complete state is passed on, and objects that are missing in it are deleted.
func TestStreamedStateReplaces(t *testing.T) {
	s := newServer(t)
	s.list = s.sendList("10", "a", "b", "c", "gone")
	s.watch = []handler{sendFrames("eof", ""), sendFrames("hold", event("ADDED", "c", "5")+event("ADDED", "a", "3")+event("ADDED", "b", "4")+
		event("DELETED", "a", "11")+event("MODIFIED", "c", "12")+event("BOOKMARK", "", "12")+event("ADDED", "d", "13")+event("DELETED", "d", "14")+
		event("ADDED", "d", "15")+initialEnd("15")+event("DELETED", "b", "16"))}
	v := s.start(s.dial(), WatchOptions{})
	v.want(t, "up")
	v.want(t, "replace c b d", "upsert", "delete", "down")
	v.want(t, "delete b", "upsert", "down")
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10 stream 10]" {
		t.Errorf("requests: %s", got)
	}
}

// A server that ignores sendInitialEvents sends events and no end of the initial state.
// No event is lost.
func TestStreamWithoutEnd(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{sendFrames("eof", ""), sendFrames("hold", event("ADDED", "a", "11")), sendFrames("hold", event("ADDED", "a", "11"))}
	c := s.dial(func(o *Options) { o.Timeout = 50 * time.Millisecond })
	c.times.grace = 50 * time.Millisecond
	v := s.start(c, WatchOptions{})
	v.want(t, "down", "upsert")
	v.want(t, "upsert a", "replace")
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10 stream 10 watch 10]" {
		t.Errorf("requests: %s", got)
	}
}

// A stream is requested only once from a server that does not support it, not after each
// failure.
func TestRejectedStreamIsNotRepeated(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{sendFrames("eof", event("ADDED", "a", "11")), refuseStream,
		sendFrames("eof", event("ADDED", "b", "12")), sendFrames("cut", event("ADDED", "c", "13")), sendFrames("hold", event("ADDED", "z", "20"))}
	v := s.start(s.dial(), WatchOptions{})
	v.want(t, "up")
	v.want(t, "upsert z", "replace")
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10 stream 11 watch 11 watch 12 watch 13]" {
		t.Errorf("requests: %s", got)
	}
}

func TestWatchInvalidNamespace(t *testing.T) {
	s := newServer(t)
	for _, ns := range []string{"..", "a/b", "a%2fb", "a?b"} {
		err := Watch(t.Context(), s.dial(), clientMounts, ns, WatchOptions{}, Handler[dws.ClientMount]{})
		if err == nil || len(s.requests()) > 0 {
			t.Errorf("%q: %v %q", ns, err, s.requests())
		}
	}
}

func TestTrackerReportsChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []State
		tr := tracker{on: func(s State) { told = append(told, s) }}
		refused := errors.New("connection refused")
		denied := apierrors.NewUnauthorized("no")
		begin := time.Now()
		for range 3 {
			wait.Advance(time.Minute)
			tr.down(refused)
		}
		tr.down(denied)
		tr.down(fmt.Errorf("again: %w", denied))
		wait.Advance(time.Minute)
		tr.up(false)
		tr.up(true)
		tr.up(true)
		tr.up(false)
		tr.down(refused)
		tr.up(false)
		want := []State{
			{Since: begin.Add(time.Minute), LastError: refused},
			{Since: begin.Add(time.Minute), LastError: denied},
			{Connected: true, Since: begin.Add(4 * time.Minute)},
			{Connected: true, Synced: true, Since: begin.Add(4 * time.Minute)},
			{Synced: true, Since: begin.Add(4 * time.Minute), LastError: refused},
			{Connected: true, Synced: true, Since: begin.Add(4 * time.Minute), LastError: refused},
		}
		if len(told) != len(want) {
			t.Fatalf("notified %d times, want %d: %+v", len(told), len(want), told)
		}
		for i, w := range want {
			g := told[i]
			if w.LastError == nil {
				g.LastError = nil
			}
			if g.Connected != w.Connected || g.Synced != w.Synced || !g.Since.Equal(w.Since) || !errors.Is(g.LastError, w.LastError) {
				t.Errorf("%d: %+v, want %+v", i, g, w)
			}
		}
	})
}

func TestBackoff(t *testing.T) {
	for name, first := range map[string]span{"failure": afterFailure, "loss": afterLoss, "busy": afterBusy} {
		t.Run(name, func(t *testing.T) {
			b := backoff{first: first}
			want := first
			for i := range 12 {
				if d := b.next(nil); d < want.least || d > want.least+want.width || d > 30*time.Second {
					t.Errorf("delay %d is %v, want one of %v", i, d, want)
				}
				want = span{min(2*want.least, longest.least), min(2*want.width, longest.width)}
			}
			b.reset()
			if d := b.next(nil); d > first.least+first.width {
				t.Errorf("%v after a reset", d)
			}
		})
	}
}

func TestBackoffHonoursRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		asked       int
		least, most time.Duration
	}{
		{5, 5 * time.Second, 5*time.Second + afterFailure.width},
		{86400, retryAfterCap, retryAfterCap + afterFailure.width},
		{-5, 0, 2 * time.Second},
	} {
		b := backoff{first: afterFailure}
		err := &Error{err: apierrors.NewTooManyRequests("slow down", tt.asked)}
		if d := b.next(err); d < tt.least || d > tt.most {
			t.Errorf("%d s requested, waits %v", tt.asked, d)
		}
	}
}

// Nodes that lose the server at the same moment must not connect within the same second:
// not at first, and not while the server refuses connections. Nodes that get the same
// Retry-After in one second must not return within one second.
func TestBackoffSpreads(t *testing.T) {
	const nodes = 10_000
	tooMany := &Error{err: apierrors.NewTooManyRequests("slow down", 1)}
	for name, tt := range map[string]struct {
		first span
		errs  []error
		most  float64 // share of the nodes
	}{
		"first":       {afterLoss, []error{nil}, 0.1},
		"refused":     {afterLoss, []error{nil, nil, nil, nil}, 0.1},
		"Retry-After": {afterBusy, []error{tooMany}, 0.3},
		"again":       {afterBusy, []error{tooMany, tooMany}, 0.15},
	} {
		t.Run(name, func(t *testing.T) {
			var times []time.Duration
			for range nodes {
				b, at := backoff{first: tt.first}, time.Duration(0)
				for _, err := range tt.errs {
					at += b.next(err)
				}
				times = append(times, at)
			}
			slices.Sort(times)
			most, first := 0, 0
			for i, at := range times {
				for at-times[first] >= time.Second {
					first++
				}
				most = max(most, i-first+1)
			}
			if float64(most) > tt.most*nodes {
				t.Errorf("%d of %d nodes connect within one second", most, nodes)
			}
		})
	}
}

func TestBusy(t *testing.T) {
	for err, want := range map[error]bool{
		&Error{err: apierrors.NewUnauthorized("starting")}:       true,
		&Error{err: apierrors.NewTooManyRequests("starting", 1)}: true,
		&Error{err: apierrors.NewServiceUnavailable("starting")}: true,
		&Error{err: apierrors.NewResourceExpired("too old")}:     false,
		&Error{err: apierrors.NewBadRequest("wrong")}:            false,
		&Error{err: apierrors.NewInternalError(io.EOF)}:          false,
	} {
		if got := busy(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
