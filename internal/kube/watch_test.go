package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
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

// After whatever breaks a watch, it goes on from the last position; only a lost
// position leads to another list, and then to exactly one.
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
	last := sendFrames("hold", event("ADDED", "z", "20"))
	tests := []struct {
		name    string
		watch   []handler
		lists   int
		resume  string // the position of the last watch
		failing bool   // the state must say so in between
	}{
		{"cut between events", []handler{sendFrames("cut", first)}, 1, "11", true},
		{"cut within an event", []handler{sendFrames("cut", first+`{"type":"ADDED","obj`)}, 1, "11", true},
		{"ended within an event", []handler{sendFrames("eof", first+`{"type":"ADDED","obj`)}, 1, "11", true},
		{"ended early", []handler{sendFrames("eof", first)}, 1, "11", false},
		{"ended at once", []handler{sendFrames("eof", ""), sendFrames("eof", "")}, 1, "10", false},
		{"ended at once all the time", []handler{sendFrames("eof", ""), sendFrames("eof", ""), sendFrames("eof", "")}, 1, "10", true},
		{"bookmark moves the position", []handler{sendFrames("eof", first+event("BOOKMARK", "", "15"))}, 1, "15", false},
		{"reset before the answer", []handler{sendFrames("eof", first), abort, abort}, 1, "11", true},
		{"429", []handler{sendFrames("eof", first), status(429, metav1.StatusReasonTooManyRequests)}, 1, "11", true},
		{"503", []handler{status(503, metav1.StatusReasonServiceUnavailable), status(503, metav1.StatusReasonServiceUnavailable)}, 1, "10", true},
		{"500", []handler{status(500, metav1.StatusReasonInternalError)}, 1, "10", true},
		{"403", []handler{sendFrames("eof", first), status(403, metav1.StatusReasonForbidden)}, 1, "11", true},
		{"garbage", []handler{sendFrames("hold", first+"<html>\n")}, 1, "11", true},
		{"event without a type", []handler{sendFrames("hold", first+"{}\n")}, 1, "11", true},
		{"unknown type", []handler{sendFrames("hold", first+event("RENAMED", "a", "12"))}, 1, "11", true},
		{"too large", []handler{sendFrames("hold", first+`{"type":"ADDED","object":{"x":"`+strings.Repeat("x", maxFrame+10)+`"}}`)}, 1, "11", true},
		{"error event", []handler{sendFrames("hold", first+errorEvent(500, metav1.StatusReasonInternalError))}, 1, "11", true},
		{"error event for ever", repeat(maxStuck, sendFrames("hold", errorEvent(500, metav1.StatusReasonInternalError))), 2, "10", true},
		{"410 as an answer", []handler{sendFrames("eof", first), status(410, metav1.StatusReasonExpired)}, 2, "10", false},
		{"410 as an event", []handler{sendFrames("hold", first+errorEvent(410, metav1.StatusReasonExpired))}, 2, "10", false},
		{"410 of old servers", []handler{sendFrames("hold", first+errorEvent(410, metav1.StatusReasonGone))}, 2, "10", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.watch = append(tt.watch, last)
			v := s.start(s.dial(), WatchOptions{})
			v.want(t, "up")
			if tt.failing {
				v.want(t, "down", "replace")
				if tt.lists == 1 {
					v.want(t, "upsert z", "down", "replace")
				} else {
					v.want(t, "upsert z")
				}
			} else {
				v.want(t, "upsert z", "down")
			}
			if n := s.count("list"); n != tt.lists {
				t.Errorf("%d lists, want %d: %q", n, tt.lists, s.requests())
			}
			log := s.requests()
			if got := log[len(log)-1]; got != "watch "+tt.resume {
				t.Errorf("the last request is %q, want watch %s: %q", got, tt.resume, log)
			}
		})
	}
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
		sendFrames("hold", event("ADDED", "z", "40"))}
	calls := 0
	s.list = func(w http.ResponseWriter, r *http.Request) {
		switch calls++; calls {
		case 2: // a server restored from a backup: our position is its future
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
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10 list 11 list  watch 30]" {
		t.Errorf("requests: %s", got)
	}
}

func TestStreamList(t *testing.T) {
	end := `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"
	t.Run("one request", func(t *testing.T) {
		s := newServer(t)
		s.watch = []handler{sendFrames("hold", event("ADDED", "b", "5")+event("ADDED", "a", "3")+end+event("MODIFIED", "a", "13"))}
		v := s.start(s.dial(), WatchOptions{StreamList: true})
		v.want(t, "replace b a", "upsert", "up")
		v.want(t, "upsert a")
		if got := fmt.Sprint(s.requests()); got != "[stream ]" {
			t.Errorf("requests: %s", got)
		}
	})
	t.Run("cut before the end of the initial state", func(t *testing.T) {
		s := newServer(t)
		s.watch = []handler{sendFrames("cut", event("ADDED", "b", "5")), sendFrames("hold", event("ADDED", "a", "3")+end)}
		v := s.start(s.dial(), WatchOptions{StreamList: true})
		v.want(t, "down unsynced", "replace", "upsert")
		v.want(t, "replace a", "upsert")
	})
	t.Run("old server", func(t *testing.T) {
		s := newServer(t)
		s.watch = []handler{func(w http.ResponseWriter, _ *http.Request) {
			sendStatus(w, 422, metav1.StatusReasonInvalid, "sendInitialEvents is forbidden", nil)
		}, sendFrames("hold", event("ADDED", "z", "20"))}
		v := s.start(s.dial(), WatchOptions{StreamList: true})
		v.want(t, "upsert z")
		if got := fmt.Sprint(s.requests()); got != "[stream  list 0 watch 10]" {
			t.Errorf("requests: %s", got)
		}
	})
}

func TestMalformedObjectDoesNotHideOthers(t *testing.T) {
	bad := strings.Replace(object("bad", "12"), `"node":"c1"`, `"node":7`, 1)
	s := newServer(t)
	s.list = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"metadata":{"resourceVersion":"10"},"items":[%s,%s,{},7]}`, bad, object("good", "9"))
	}
	s.watch = []handler{sendFrames("eof", `{"type":"MODIFIED","object":`+bad+"}\n"+event("MODIFIED", "good", "13")),
		sendFrames("hold", event("ADDED", "z", "20"))}
	v := s.start(s.dial(), WatchOptions{})
	v.want(t, "malformed bad", "replace")
	v.want(t, "replace good")
	v.want(t, "malformed bad", "down")
	v.want(t, "upsert good", "down")
	v.want(t, "upsert z", "down")
	if n := s.count("watch 13"); n != 1 {
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
				t.Errorf("the version is not named: %v", err)
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
	s.watch = []handler{sendFrames("hold", event("BOOKMARK", "", "15")), sendFrames("hold", event("ADDED", "z", "20"))}
	c := s.dial()
	c.times.silence = 20 * time.Millisecond
	v := s.start(c, WatchOptions{})
	v.want(t, "down", "replace z")
	v.want(t, "upsert z", "replace")
	if got := fmt.Sprint(s.requests()); got != "[list 0 watch 10 watch 15]" {
		t.Errorf("requests: %s", got)
	}
}

func TestNoAnswerToWatch(t *testing.T) {
	s := newServer(t)
	s.watch = []handler{func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		sendFrames("hold", event("ADDED", "z", "20"))}
	c := s.dial(func(o *Options) { o.Timeout = 50 * time.Millisecond })
	c.times.grace = 50 * time.Millisecond
	v := s.start(c, WatchOptions{})
	v.want(t, "down", "upsert")
	v.want(t, "upsert z", "replace")
}

// A watch that the server ends when asked to is renewed at once.
func TestWatchEndsInTime(t *testing.T) {
	s := newServer(t)
	end := make(chan struct{})
	s.watch = []handler{func(w http.ResponseWriter, r *http.Request) {
		sendFrames("eof", event("ADDED", "a", "11"))(w, r)
		<-end
	}, sendFrames("hold", event("ADDED", "z", "20"))}
	c := s.dial(func(o *Options) { o.MinWatchTimeout = time.Second })
	c.times.retry = time.Hour // any delay would end the test
	v := s.start(c, WatchOptions{})
	v.want(t, "upsert a")
	time.AfterFunc(1100*time.Millisecond, func() { close(end) })
	v.want(t, "upsert z", "down", "replace")
}

func TestWatchRefusesBadNamespace(t *testing.T) {
	s := newServer(t)
	for _, ns := range []string{"..", "a/b", "a%2fb", "a?b"} {
		err := Watch(t.Context(), s.dial(), clientMounts, ns, WatchOptions{}, Handler[dws.ClientMount]{})
		if err == nil || len(s.requests()) > 0 {
			t.Errorf("%q: %v %q", ns, err, s.requests())
		}
	}
}
