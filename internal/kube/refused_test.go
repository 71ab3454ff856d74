package kube

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// remote is an issuer whose responses take some time, as on a network, so that KeepToken sees what
// changes between two requests. Watches last until their context ends.
type remote struct{ *issuer }

func (i remote) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(5 * time.Millisecond)
	resp, err := i.issuer.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusOK && r.URL.Query().Has("watch") {
		body, end := io.Pipe()
		context.AfterFunc(r.Context(), func() { end.Close() })
		resp.Body = body
	}
	return resp, err
}

// watched is a daemon that watches its objects, with one token, or two of the same account.
type watched struct {
	*renewed
	tokens []string
	ups    int // how often the watch was established
	since  time.Time
}

// change changes the server.
func (w *watched) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// watching runs a test of a daemon whose tokens the server refuses, when these are due or not.
func watching(t *testing.T, tokens int, due bool, f func(*watched)) {
	t.Helper()
	bubble(t, func(r *renewed) {
		w := &watched{renewed: r}
		for range tokens {
			token := r.issue(week)
			w.tokens, r.revoked[token] = append(w.tokens, token), true
			r.pass(time.Hour)
		}
		r.give(w.tokens[0])
		if tokens > 1 {
			if err := r.o.Renewal.write(w.tokens[1]); err != nil {
				t.Fatal(err)
			}
		}
		if due {
			r.pass(week * 86 / 100)
		}
		r.start()
		r.c.token.base = remote{r.issuer}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		on := func(s State) {
			if s.Connected {
				w.ups, w.since = w.ups+1, time.Now()
			}
		}
		go func() {
			defer close(done)
			_ = Watch(ctx, r.c, clientMounts, "c1", WatchOptions{OnState: on}, Handler[dws.ClientMount]{})
		}()
		f(w)
		cancel()
		<-done
	})
}

// A server that refuses both tokens of a daemon gets no more requests, from the watch and from the
// renewal, than from two daemons with one token, and the state of the token does not alternate.
func TestRequestsWithRefusedTokens(t *testing.T) {
	type counts struct{ reads, renewals, states int }
	hour := func(tokens int, due bool) (c counts) {
		watching(t, tokens, due, func(w *watched) {
			w.pass(time.Hour)
			c = counts{w.count("GET"), w.count("POST"), len(w.states)}
		})
		return c
	}
	for _, due := range []bool{false, true} {
		one, two := hour(1, due), hour(2, due)
		t.Logf("due: %v; one token: %+v; two: %+v", due, one, two)
		if one.reads < 120 || one.reads > 240 || one.renewals > 10 || due && one.renewals < 3 {
			t.Errorf("due: %v; one token: %+v", due, one)
		}
		// The delays are random: an hour has 165 to 185 of them.
		if two.reads > one.reads*22/10 || two.renewals > 2*(one.renewals+2) || two.states > one.states+2 {
			t.Errorf("due: %v; one token: %+v; two: %+v", due, one, two)
		}
	}
}

// When the server accepts one of the tokens later, or the administrator installs another one, the
// daemon recovers with the next attempt, after at most 30 seconds.
func TestRefusedTokenRecovers(t *testing.T) {
	for name, repair := range map[string]func(*watched){
		"the newer is accepted": func(w *watched) { w.revoked[w.tokens[len(w.tokens)-1]] = false },
		"the older is accepted": func(w *watched) { w.revoked[w.tokens[0]] = false },
		"a new one":             func(w *watched) { w.give(w.issue(week)) },
	} {
		for tokens := 1; tokens <= 2; tokens++ {
			for _, due := range []bool{false, true} {
				watching(t, tokens, due, func(w *watched) {
					w.pass(20 * time.Minute)
					if w.ups != 0 {
						t.Fatal("the watch was established")
					}
					w.change(func() { repair(w); w.requests = nil })
					w.pass(time.Hour)
					took := time.Hour - time.Since(w.since)
					t.Logf("%s: %d tokens, due: %v: after %v; %v", name, tokens, due, took, w.requests)
					if w.ups != 1 || took > 31*time.Second || len(w.requests) > 10 {
						t.Errorf("%s: %d tokens, due: %v: connected %d times, after %v; %v", name, tokens, due, w.ups, took, w.requests)
					}
					if s := w.last(); due && (s.Condition != TokenValid || s.Renewals != 1 && name != "a new one") {
						t.Errorf("%s: %d tokens: %+v", name, tokens, s)
					}
				})
			}
		}
	}
}

// Behind an address there may be servers of which each accepts one of the tokens only. A request
// then needs both, but failed renewals wait as long as with one token.
func TestAlternatingServers(t *testing.T) {
	hour := func(tokens int) (renewals int) {
		watching(t, tokens, true, func(w *watched) {
			n := 0
			w.change(func() {
				w.refuse = func(r *http.Request) (int, metav1.StatusReason) {
					if r.Method == http.MethodPost {
						return http.StatusForbidden, metav1.StatusReasonForbidden
					}
					n++
					for i, token := range w.tokens {
						w.revoked[token] = tokens > 1 && (n/2+i)%2 == 0 || tokens == 1 && n%2 == 0
					}
					return 0, ""
				}
			})
			for range 3600 {
				w.pass(time.Second)
				_ = w.get()
			}
			renewals = w.count("POST")
			if n := strings.Count(w.log.String(), "refused the token"); n > 2 {
				t.Errorf("%d records", n)
			}
		})
		return renewals
	}
	if one, two := hour(1), hour(2); one < 3 || two > 2*(one+2) {
		t.Errorf("%d requests for a token with one token, %d with two", one, two)
	}
}
