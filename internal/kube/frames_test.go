package kube

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

func TestFrames(t *testing.T) {
	big := `{"type":"ADDED","object":"` + strings.Repeat("x", maxFrame) + `"}`
	tests := []struct {
		name, in string
		events   int
		end      error
	}{
		{"empty", "", 0, io.EOF},
		{"one", event("ADDED", "a", "1"), 1, io.EOF},
		{"no line break between", strings.TrimSpace(event("ADDED", "a", "1")) + event("ADDED", "b", "2"), 2, io.EOF},
		{"cut", event("ADDED", "a", "1") + `{"type"`, 1, io.ErrUnexpectedEOF},
		{"not JSON", "<html>", 0, errBadFrame},
		{"not an object", "7", 0, errBadFrame},
		{"type of another type", `{"type":7}`, 0, errBadFrame},
		{"null", "null", 0, errBadFrame},
		{"too large", big, 0, errFrameTooBig},
		{"many that are small", strings.Repeat(event("ADDED", strings.Repeat("a", 1<<10), "1"), 5<<10), 5 << 10, io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, n := newFrames(strings.NewReader(tt.in)), 0
			for {
				_, err := f.next()
				if err != nil {
					if !errors.Is(err, tt.end) {
						t.Errorf("ended with %v, want %v", err, tt.end)
					}
					break
				}
				n++
			}
			if n != tt.events {
				t.Errorf("%d events, want %d", n, tt.events)
			}
		})
	}
}

func TestErrorEvent(t *testing.T) {
	f := newFrames(strings.NewReader(errorEvent(410, "Expired")))
	ev, err := f.next()
	if err != nil {
		t.Fatal(err)
	}
	if err := errorOf(ev.Object); !apierrors.IsResourceExpired(err) || !lostPosition(err) {
		t.Errorf("got %v", err)
	}
	if err := errorOf([]byte(`{"kind":"Pod"}`)); !errors.Is(err, errBadFrame) {
		t.Errorf("got %v", err)
	}
}

// FuzzFrames checks that decoding any input ends with an error, never with a panic, and
// that every object for the caller has a name.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{
		event("ADDED", "a", "1"), event("DELETED", "a", "1") + event("BOOKMARK", "", "3"), errorEvent(410, "Expired"),
		`{"type":"ADDED","object":null}`, `{"type":"BOOKMARK","object":[]}`, `{"type":"ERROR","object":{}}`,
		`{"type":"ADDED","object":{"metadata":{"name":"x","creationTimestamp":7}}}`, `{"type":"DELETED"}`, "null", "{",
		`{"type":"ADDED","object":{"metadata":{"name":"x"},"spec":{"mounts":[null,{"userID":-1}]}}}`,
		`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12","annotations":{"k8s.io/initial-events-end":"true"}}}}`,
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, stream bool) {
		check := func(m *dws.ClientMount) {
			if m == nil || m.Name == "" || len(m.ManagedFields) > 0 {
				t.Errorf("returned %+v", m)
			}
		}
		h := Handler[dws.ClientMount]{Upsert: check, Replace: func(all []*dws.ClientMount) {
			for _, m := range all {
				check(m)
			}
		}}
		w := &watcher{c: &Client{},
			sink: &typed[dws.ClientMount, *dws.ClientMount]{h: h, kind: "ClientMount", log: slog.New(slog.DiscardHandler)}}
		var initial *initialState
		if stream {
			limit := time.NewTimer(time.Minute)
			defer limit.Stop()
			initial = newInitialState("", limit)
		}
		if err := w.consume(newFrames(bytes.NewReader(in)), initial, func() {}); err == nil {
			t.Error("ended without an error")
		}
	})
}
