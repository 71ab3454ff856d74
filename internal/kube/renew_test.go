package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	week       = 7 * 24 * time.Hour
	ownAccount = "system:serviceaccount:c1:clientmountd"
)

// issuer is an API server that issues tokens, as far as KeepToken can see it: it knows the time,
// refuses expired and revoked tokens, and grants tokens for at most longest. Its clock is ahead of
// that of the node by offset.
type issuer struct {
	t       *testing.T
	mu      sync.Mutex // of a request
	offset  time.Duration
	longest time.Duration // 0: no limit
	uid     string        // of the account; tokens of another one are refused
	revoked map[string]bool
	serial  int
	undated bool
	ahead   time.Duration // of the dates in responses

	answer   func(claims map[string]any) string // replaces a new token; nil: not replaced
	refuse   func(*http.Request) (code int, reason metav1.StatusReason)
	requests []string
	seconds  []int64 // of the lives that were requested
	bound    *ObjectRef
}

func (i *issuer) now() time.Time { return time.Now().Add(i.offset).Truncate(time.Second) }

// claims returns those of a token that is issued now.
func (i *issuer) claims(life time.Duration) map[string]any {
	i.serial++
	now := i.now()
	return map[string]any{
		"sub": ownAccount, "iat": now.Unix(), "exp": now.Add(life).Unix(), "jti": fmt.Sprint(i.serial),
		"kubernetes.io": map[string]any{"namespace": "c1", "serviceaccount": map[string]any{"name": "clientmountd", "uid": i.uid}},
	}
}

func tokenWith(claims map[string]any) string {
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return part(`{"alg":"none"}`) + "." + part(string(text)) + "." + part("x")
}

func (i *issuer) issue(life time.Duration) string { return tokenWith(i.claims(life)) }

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests = append(i.requests, r.Method+" "+r.URL.Path)
	code, body := http.StatusOK, any(map[string]any{})
	fail := func(c int, reason metav1.StatusReason) {
		code, body = c, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(c), Reason: reason, Message: string(reason)}
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	claims, err := ClaimsOf(token)
	refused := err != nil || i.revoked[token] || claims.UID != "" && claims.UID != i.uid || !claims.Expires.IsZero() && !i.now().Before(claims.Expires)
	if i.refuse != nil {
		c, reason := i.refuse(r)
		if c < 0 {
			return nil, errors.New("connection refused")
		}
		if c > 0 && !refused { // the account is checked first
			fail(c, reason)
		}
	}
	switch {
	case code != http.StatusOK:
	case refused:
		fail(http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
	case r.Method == http.MethodPost:
		var request TokenRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || r.URL.Path != "/api/v1/namespaces/c1/serviceaccounts/clientmountd/token" {
			i.t.Errorf("%s: %v", r.URL, err)
		}
		life := time.Duration(request.Spec.Seconds) * time.Second
		if i.longest > 0 {
			life = min(life, i.longest)
		}
		i.seconds, i.bound = append(i.seconds, request.Spec.Seconds), request.Spec.Bound
		made := i.claims(life)
		request.Status.Token = tokenWith(made)
		if i.answer != nil {
			request.Status.Token = i.answer(made)
		}
		code, body = http.StatusCreated, request
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if !i.undated {
		header.Set("Date", time.Now().Add(i.offset+i.ahead).UTC().Format(http.TimeFormat))
	}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(bytes.NewReader(text)), Request: r}, nil
}

func (i *issuer) count(prefix string) (n int) {
	for _, r := range i.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// renewed is a daemon with a token file, a state directory and KeepToken.
type renewed struct {
	*issuer
	o      Options
	c      *Client
	log    bytes.Buffer
	states []TokenState
	cancel context.CancelFunc
	done   chan struct{}
}

func newRenewed(t *testing.T) *renewed {
	t.Helper()
	dir := t.TempDir()
	r := &renewed{issuer: &issuer{t: t, uid: "u1", revoked: map[string]bool{}}}
	_, ca := serverCertFor(t, time.Now().Add(-time.Hour), time.Now().Add(100*365*24*time.Hour))
	r.o = Options{
		Host: "api", Port: "6443", TokenFile: filepath.Join(dir, "token"), CertFile: write(t, dir, "cert", ca, 0o644), QPS: -1, Log: slog.New(slog.NewTextHandler(&r.log, nil)),
		Renewal: Renewal{Node: "c1", Daemon: "clientmountd", Directory: filepath.Join(dir, "state"), Report: func(s TokenState) { r.states = append(r.states, s) }},
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// give installs a token, as an administrator does.
func (r *renewed) give(token string) {
	r.t.Helper()
	replace(r.t, r.o.TokenFile, token)
}

// start starts the daemon.
func (r *renewed) start() {
	r.t.Helper()
	c, err := Dial(r.o)
	if err != nil {
		r.t.Fatal(err)
	}
	c.token.base = r.issuer
	ctx, cancel := context.WithCancel(context.Background())
	r.c, r.cancel, r.done = c, cancel, make(chan struct{})
	go func() { defer close(r.done); c.KeepToken(ctx) }()
	synctest.Wait()
}

func (r *renewed) stop() {
	if r.cancel != nil {
		r.cancel()
		<-r.done
		r.cancel = nil
	}
}

func (r *renewed) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// get sends another request.
func (r *renewed) get() error {
	err := r.c.Get(context.Background(), clientMounts, "c1", "a", nil)
	synctest.Wait()
	return err
}

// stored returns the token in the state directory, "" for none.
func (r *renewed) stored() string {
	data, err := os.ReadFile(r.o.Renewal.file())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

func (r *renewed) last() TokenState {
	if len(r.states) == 0 {
		return TokenState{}
	}
	return r.states[len(r.states)-1]
}

// bubble runs a test in which time is simulated.
func bubble(t *testing.T, f func(*renewed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRenewed(t)
		f(r)
		r.stop()
	})
}

// A token is renewed once in its life, at 75 to 85 % of it, and for the same time; the new one is
// used immediately, is stored for the daemon only, and is used after a restart.
func TestRenewal(t *testing.T) {
	bubble(t, func(r *renewed) {
		first := r.issue(week)
		r.give(first)
		r.start()
		if s := r.last(); s.Kind != TokenPerNode || s.Condition != TokenValid || s.Account != ownAccount || s.File != r.o.TokenFile || s.Expires.Sub(s.Renewal) > week/4 || s.Expires.Sub(s.Renewal) < week*15/100 {
			t.Errorf("%+v", s)
		}
		r.pass(week*75/100 - time.Second)
		if len(r.requests) != 0 {
			t.Fatalf("before it is due: %v", r.requests)
		}
		r.pass(week / 10)
		if got := strings.Join(r.requests, ", "); got != "GET /version, POST /api/v1/namespaces/c1/serviceaccounts/clientmountd/token" {
			t.Fatalf("%s", got)
		}
		if r.seconds[0] != int64(week/time.Second) {
			t.Errorf("requested for %d s", r.seconds[0])
		}
		second := r.stored()
		if info, err := os.Stat(r.o.Renewal.file()); err != nil || info.Mode() != 0o600 || second == first || second == "" {
			t.Fatalf("%v %v", info, err)
		}
		if dir, err := os.Stat(r.o.Renewal.Directory); err != nil || dir.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", dir, err)
		}
		r.revoked[first] = true
		if err := r.get(); err != nil {
			t.Error(err)
		}
		if s := r.last(); s.Renewals != 1 || s.File != r.o.Renewal.file() || s.Condition != TokenValid || s.Hint != "" {
			t.Errorf("%+v", s)
		}
		r.stop()
		r.start()
		if err := r.get(); err != nil {
			t.Error(err)
		}
		if source := r.c.Source(); source != "token file "+r.o.Renewal.file() {
			t.Error(source)
		}
		// Over a long time there is one request in 75 to 85 % of a life.
		before := r.count("POST")
		r.pass(20 * week)
		if n := r.count("POST") - before; n < 23 || n > 27 {
			t.Errorf("%d renewals in 20 lives", n)
		}
		if text := r.log.String(); strings.Contains(text, second) || strings.Contains(text, "WARN") {
			t.Error(text)
		}
	})
}

// Nodes that got their tokens in the same second do not renew them at the same time.
func TestRenewalIsSpread(t *testing.T) {
	i := issuer{uid: "u1"}
	var slots [10]int
	for range 1000 {
		b := newBearer(i.issue(week))
		slots[int(dueAt(b).Sub(b.claims.Issued.Add(week*3/4))*10/(week/10))]++
	}
	for _, n := range slots {
		if n < 50 || n > 150 {
			t.Errorf("%v", slots)
		}
	}
}

// Other credentials are not renewed, and there is no timer for them. A change to an own token is
// noticed with the next request.
func TestNotRenewed(t *testing.T) {
	bubble(t, func(r *renewed) {
		change := func(key string, value any) string {
			claims := r.claims(time.Hour)
			if claims[key] = value; value == nil {
				delete(claims, key)
			}
			return tokenWith(claims)
		}
		for _, tt := range []struct {
			token string
			kind  TokenKind
		}{
			{jwt(account), TokenShared},
			{change("sub", "system:serviceaccount:c1:nnf-dm"), TokenShared},
			{change("sub", "system:serviceaccount:c2:clientmountd"), TokenOther},
			{change("sub", nil), TokenOther},
			{change("exp", nil), TokenPerNode},
			{change("iat", nil), TokenPerNode},
			{change("kubernetes.io", map[string]any{"pod": map[string]any{"name": "p"}}), TokenPerNode},
			{"opaque", TokenOther},
		} {
			r.requests = nil
			r.give(tt.token)
			r.start()
			r.pass(10 * week)
			if len(r.requests) != 0 || r.last().Kind != tt.kind || !r.last().Renewal.IsZero() {
				t.Errorf("%s: %v %+v", tt.kind, r.requests, r.last())
			}
			r.give(r.issue(time.Hour))
			if err := r.get(); err != nil {
				t.Error(err)
			}
			if r.last().Renewal.IsZero() {
				t.Errorf("%s: %+v", tt.kind, r.last())
			}
			r.pass(time.Hour)
			if r.count("POST") != 1 {
				t.Errorf("%s: %v", tt.kind, r.requests)
			}
			r.stop()
			if err := os.RemoveAll(r.o.Renewal.Directory); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The time at the API server decides, not the clock of the node.
func TestRenewalWithWrongClock(t *testing.T) {
	const years = 6 * 365 * 24 * time.Hour
	for _, offset := range []time.Duration{-years, years} {
		bubble(t, func(r *renewed) {
			r.offset = offset
			r.give(r.issue(week))
			r.start()
			r.pass(time.Hour)
			if offset < 0 && strings.Join(r.requests, " ") != "GET /version" {
				t.Errorf("%v: %v", offset, r.requests)
			}
			if offset > 0 {
				if err := r.get(); err != nil { // the first response
					t.Error(err)
				}
			}
			r.pass(week*75/100 - 2*time.Hour)
			if r.count("POST") != 0 {
				t.Errorf("%v: renewed too early: %v", offset, r.requests)
			}
			r.pass(week/10 + 2*time.Hour)
			if r.count("POST") != 1 || len(r.requests) > 2 || r.last().Condition != TokenValid {
				t.Errorf("%v: %v %+v", offset, r.requests, r.last())
			}
			r.pass(week / 2)
			if r.count("POST") != 1 {
				t.Errorf("%v: renewed in a loop: %v", offset, r.requests)
			}
		})
	}
}

// After a clock was set, or the node was suspended, the next response shows the time at the server:
// the token is renewed if it is due, and otherwise not.
func TestClockJump(t *testing.T) {
	bubble(t, func(r *renewed) {
		r.give(r.issue(week))
		r.start()
		if err := r.get(); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Hour)
		r.offset += week * 86 / 100
		r.pass(time.Hour)
		if r.count("POST") != 0 {
			t.Error("renewed without knowing the time")
		}
		if err := r.get(); err != nil {
			t.Fatal(err)
		}
		if r.count("POST") != 1 {
			t.Errorf("%v", r.requests)
		}
		r.offset -= 100 * week
		for range 10 {
			if err := r.get(); err != nil {
				t.Fatal(err)
			}
			r.pass(time.Hour)
		}
		if r.count("POST") != 1 || r.last().Condition != TokenValid {
			t.Errorf("%v %+v", r.requests, r.last())
		}
	})
}

// A proxy whose clock is ahead of that of the server does not make the daemon renew in a loop, or
// give up.
func TestRenewalWithWrongDate(t *testing.T) {
	for _, ahead := range []time.Duration{week * 90 / 100, 100 * week} {
		renewalAhead(t, ahead)
	}
}

func renewalAhead(t *testing.T, ahead time.Duration) {
	bubble(t, func(r *renewed) {
		r.give(r.issue(week))
		r.ahead = ahead
		r.start()
		for range 7 * 24 {
			if err := r.get(); err != nil {
				t.Fatal(err)
			}
			r.pass(time.Hour)
		}
		if n := r.count("POST"); n < 1 || n > shortestPause+1 {
			t.Errorf("%d renewals in one life", n)
		}
	})
}

// A server, or a proxy, whose responses have no date: the clock of the node counts.
func TestRenewalWithoutDate(t *testing.T) {
	bubble(t, func(r *renewed) {
		r.undated = true
		r.give(r.issue(week))
		r.start()
		r.pass(week)
		if r.count("POST") != 1 || r.last().Condition != TokenValid {
			t.Errorf("%v %+v", r.requests, r.last())
		}
	})
}

// Failed renewals are repeated with growing delays, need attention from the middle of the remaining
// time on, and end with the token.
func TestFailedRenewal(t *testing.T) {
	for name, tt := range map[string]struct {
		code   int
		reason metav1.StatusReason
		hint   string
	}{
		"role":      {403, metav1.StatusReasonForbidden, "nnf-deploy identities apply c1"},
		"busy":      {503, metav1.StatusReasonServiceUnavailable, ""},
		"no server": {-1, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *renewed) {
				r.give(r.issue(week))
				r.start()
				if err := r.get(); err != nil {
					t.Fatal(err)
				}
				due, end := r.last().Renewal, r.last().Expires
				r.refuse = func(*http.Request) (int, metav1.StatusReason) { return tt.code, tt.reason }
				r.pass(time.Until(due.Add(time.Minute / 2)))
				if s := r.last(); s.Condition != TokenRetrying || s.Error == "" || s.Failures != 1 || !strings.HasSuffix(s.Hint, tt.hint) {
					t.Errorf("%+v", s)
				}
				r.pass(end.Sub(due)/2 - time.Minute)
				if s := r.last(); s.Condition != TokenRetrying {
					t.Errorf("before the middle: %+v", s)
				}
				r.pass(2 * time.Minute)
				if s := r.last(); s.Condition != TokenFailing {
					t.Errorf("after the middle: %+v", s)
				}
				n := len(r.requests)
				if n < 15 || n > 80 {
					t.Errorf("%d requests until the middle", n)
				}
				r.pass(time.Until(end) + 2*time.Hour)
				s := r.last()
				if s.Condition != TokenExpired || s.Hint != "run on the administrator's host: nnf-deploy install --no-programs --identity per-node c1" {
					t.Errorf("after the end: %+v", s)
				}
				n = len(r.requests)
				r.pass(week)
				if more := len(r.requests) - n; tt.code > 0 && more > 0 || more > 7*24*2 {
					t.Errorf("%d requests with an expired token", more)
				}
				r.refuse = nil
				if err := r.get(); err == nil || !strings.Contains(err.Error(), "the token in "+r.o.TokenFile+" expired at "+end.Format(time.RFC3339)+"; run on the administrator's host") {
					t.Error(err)
				}
				r.give(r.issue(week)) // by the administrator
				if err := r.get(); err != nil || r.last().Condition != TokenValid || r.last().Error != "" {
					t.Errorf("%v %+v", err, r.last())
				}
			})
		})
	}
}

// Renewal recovers when the reason of the failure is gone.
func TestRenewalRecovers(t *testing.T) {
	bubble(t, func(r *renewed) {
		r.give(r.issue(week))
		r.start()
		r.refuse = func(*http.Request) (int, metav1.StatusReason) { return 403, metav1.StatusReasonForbidden }
		r.pass(week * 90 / 100)
		r.refuse = nil
		r.pass(2 * time.Hour)
		if s := r.last(); s.Condition != TokenValid || s.Error != "" || s.Renewals != 1 || s.Failures == 0 || r.stored() == "" {
			t.Errorf("%+v", s)
		}
	})
}

// A node that was off for longer than the life of its token: one precise text, and no loop.
func TestExpiredAtStart(t *testing.T) {
	bubble(t, func(r *renewed) {
		r.give(r.issue(week))
		r.pass(2 * week)
		r.start()
		r.pass(week)
		if s := r.last(); s.Condition != TokenExpired || s.File != r.o.TokenFile || !strings.HasSuffix(s.Hint, "--identity per-node c1") || len(r.states) != 1 {
			t.Errorf("%+v", r.states)
		}
		if got := strings.Join(r.requests, " "); got != "GET /version POST /api/v1/namespaces/c1/serviceaccounts/clientmountd/token" {
			t.Error(got)
		}
	})
}

// A server that grants less: the daemon renews at 80 % of what was granted, and logs it once. If it
// grants the full time again, the daemon gets it.
func TestShorterLife(t *testing.T) {
	bubble(t, func(r *renewed) {
		r.give(r.issue(week))
		r.longest = 4 * 24 * time.Hour
		r.start()
		r.pass(5 * week)
		if n := r.count("POST"); n < 7 || n > 12 {
			t.Errorf("%d renewals", n)
		}
		if n := strings.Count(r.log.String(), "for a shorter time than requested"); n != 1 {
			t.Errorf("%d warnings", n)
		}
		r.longest = 0
		r.pass(r.longest + week)
		claims, _ := ClaimsOf(r.stored())
		if claims.Life() != week {
			t.Errorf("%v", claims.Life())
		}
	})
}

// If a new token would end before the present one, the daemon keeps that until then.
func TestMuchShorterLife(t *testing.T) {
	bubble(t, func(r *renewed) {
		first := r.issue(week)
		r.give(first)
		r.longest = 10 * time.Minute
		r.start()
		r.pass(week - 11*time.Minute)
		if s := r.last(); !strings.Contains(s.Error, errShorter.Error()) || r.stored() != "" {
			t.Errorf("%+v", s)
		}
		for range 12 { // each needs about 8 minutes
			r.pass(8 * time.Minute)
			if err := r.get(); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(r.log.String(), "for a shorter time than requested"); n != 1 {
			t.Errorf("%d warnings", n)
		}
	})
}

// The daemon uses no answer that is not a newer token of its account.
func TestHostileAnswers(t *testing.T) {
	for name, answer := range map[string]func(*issuer, map[string]any) string{
		"empty":             func(*issuer, map[string]any) string { return "" },
		"opaque":            func(*issuer, map[string]any) string { return "opaque" },
		"header injection":  func(_ *issuer, c map[string]any) string { return tokenWith(c) + "\r\nX: y" },
		"control character": func(_ *issuer, c map[string]any) string { return tokenWith(c) + "\x00" },
		"huge":              func(_ *issuer, c map[string]any) string { return tokenWith(c) + strings.Repeat("x", maxTokenFile) },
		"other account":     func(_ *issuer, c map[string]any) string { c["sub"] = account; return tokenWith(c) },
		"other node": func(_ *issuer, c map[string]any) string {
			c["sub"] = "system:serviceaccount:c2:clientmountd"
			return tokenWith(c)
		},
		"recreated account": func(_ *issuer, c map[string]any) string {
			c["kubernetes.io"] = map[string]any{"serviceaccount": map[string]any{"uid": "u2"}}
			return tokenWith(c)
		},
		"bound to a pod": func(_ *issuer, c map[string]any) string {
			c["kubernetes.io"] = map[string]any{"pod": map[string]any{"name": "p"}}
			return tokenWith(c)
		},
		"never expires": func(_ *issuer, c map[string]any) string { delete(c, "exp"); return tokenWith(c) },
		"not issued":    func(_ *issuer, c map[string]any) string { delete(c, "iat"); return tokenWith(c) },
		"expired":       func(i *issuer, c map[string]any) string { c["exp"] = i.now().Unix(); return tokenWith(c) },
		"ends in 10000": func(_ *issuer, c map[string]any) string { c["exp"] = lastSecond + 1; return tokenWith(c) },
		"the same":      func(i *issuer, _ map[string]any) string { c, _ := os.ReadFile(i.t.Name()); return string(c) },
		"issued long ago": func(i *issuer, c map[string]any) string {
			c["iat"] = i.now().Add(-2 * week).Unix()
			return tokenWith(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *renewed) {
				first := r.issue(week)
				r.answer = func(c map[string]any) string {
					if answer == nil {
						return first
					}
					return answer(r.issuer, c)
				}
				r.give(first)
				r.start()
				r.pass(week * 86 / 100)
				if s := r.last(); s.Condition != TokenRetrying || s.Error == "" || s.Renewals != 0 || r.stored() != "" {
					t.Errorf("%+v", s)
				}
				if n := r.count("POST"); n == 0 || n > 40 {
					t.Errorf("%d requests", n)
				}
				if err := r.get(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A token that is bound to a Node stays bound.
func TestRenewalOfBoundToken(t *testing.T) {
	bubble(t, func(r *renewed) {
		claims := r.claims(week)
		claims["kubernetes.io"].(map[string]any)["node"] = map[string]any{"name": "c1", "uid": "n1"}
		r.give(tokenWith(claims))
		r.start()
		r.pass(week * 86 / 100)
		if r.bound == nil || *r.bound != (ObjectRef{"v1", "Node", "c1", "n1"}) {
			t.Errorf("%v", r.bound)
		}
	})
}

// Of the given and the stored token, the one that was issued last for the same account is used.
func TestWhichToken(t *testing.T) {
	bubble(t, func(r *renewed) {
		tokens := map[string]string{}
		for _, name := range []string{"old", "new"} {
			tokens[name] = r.issue(week)
			r.pass(time.Second)
		}
		r.uid = "u2"
		tokens["recreated"] = r.issue(week)
		tokens["shared"] = jwt(account)
		other := r.claims(week)
		other["sub"] = "system:serviceaccount:c2:clientmountd"
		tokens["other"] = tokenWith(other)
		tokens["broken"], tokens["empty"], tokens["opaque"] = "a b", "", "opaque"
		for _, tt := range []struct {
			given, stored, used, log string
			mode                     os.FileMode
		}{
			{given: "old", stored: "new", used: "new"},
			{given: "new", stored: "old", used: "new"},
			{given: "new", stored: "new", used: "new"},
			{given: "recreated", stored: "new", used: "recreated", log: "the account was created again"},
			{given: "old", stored: "recreated", used: "old", log: "the account was created again"},
			{given: "shared", stored: "new", used: "shared", log: "it is of"},
			{given: "old", stored: "shared", used: "old", log: "is not a token of clientmountd on this node"},
			{given: "old", stored: "other", used: "old", log: "is not a token of clientmountd on this node"},
			{given: "old", stored: "broken", used: "old", log: "white space"},
			{given: "old", stored: "empty", used: "old", log: "is empty"},
			{given: "old", stored: "opaque", used: "old", log: "is not a token of"},
			{given: "old", stored: "new", mode: 0o640, used: "old", log: "can be read or changed by other users"},
			{given: "old", stored: "new", mode: fs.ModeSymlink, used: "old", log: "too many levels of symbolic links"},
			{given: "old", stored: "new", mode: fs.ModeNamedPipe, used: "old", log: "is not a regular file"},
		} {
			dir := r.o.Renewal.Directory
			os.RemoveAll(dir)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			name, mode := StoredToken, os.FileMode(0o600)
			switch tt.mode {
			case fs.ModeSymlink:
				name = "target"
				if err := os.Symlink(name, r.o.Renewal.file()); err != nil {
					t.Fatal(err)
				}
			case fs.ModeNamedPipe:
				name = ""
				if err := unix.Mkfifo(r.o.Renewal.file(), 0o600); err != nil {
					t.Fatal(err)
				}
			case 0:
			default:
				mode = tt.mode
			}
			if name != "" {
				write(t, dir, name, tokens[tt.stored]+"\n", mode)
			}
			r.log.Reset()
			r.give(tokens[tt.given])
			r.start()
			if got, err := r.c.token.current(); err != nil || got != tokens[tt.used] {
				t.Errorf("%s, %s: %v", tt.given, tt.stored, err)
			}
			text := r.log.String()
			if tt.log == "" && text != "" || !strings.Contains(text, tt.log) || strings.Count(text, "\n") > 1 {
				t.Errorf("%s, %s: the log is %q", tt.given, tt.stored, text)
			}
			r.stop()
		}
	})
}

// If the server refuses one of two tokens, the daemon uses the other one, also for the request that
// was refused. If it refuses both, each request is sent at most twice.
func TestRefusedToken(t *testing.T) {
	bubble(t, func(r *renewed) {
		first := r.issue(week)
		r.pass(time.Hour)
		second := r.issue(week)
		r.give(first)
		if err := r.o.Renewal.write(second); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.revoked[second] = true
		for range 3 {
			if err := r.get(); err != nil {
				t.Error(err)
			}
		}
		if len(r.requests) != 4 || strings.Count(r.log.String(), "refused the token") != 1 {
			t.Errorf("%v\n%s", r.requests, &r.log)
		}
		r.revoked[first] = true
		for range 4 {
			r.requests = nil
			// An installation without --force would keep the token, which has not expired.
			if err := r.get(); err == nil || len(r.requests) > 2 || !strings.Contains(err.Error(), "they may have been revoked; "+r.o.Renewal.Replace()) {
				t.Errorf("%v %v", err, r.requests)
			}
		}
		// The renewal of refused tokens does not run in a loop.
		r.requests = nil
		r.pass(week * 86 / 100)
		if n := len(r.requests); n > 100 || r.last().Hint != "run on the administrator's host: nnf-deploy install --no-programs --force --identity per-node c1" {
			t.Errorf("%d requests, %+v", n, r.last())
		}
		r.give(r.issue(week))
		if err := r.get(); err != nil {
			t.Error(err)
		}
		clear(r.revoked)
	})
}

// A request with a body is repeated completely.
func TestRefusedTokenWithBody(t *testing.T) {
	bubble(t, func(r *renewed) {
		first := r.issue(week)
		r.pass(time.Hour)
		second := r.issue(week)
		r.give(first)
		if err := r.o.Renewal.write(second); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.revoked[second] = true
		req := TokenRequest{Spec: TokenRequestSpec{Seconds: 700}}
		if err := r.c.CreateFor(context.Background(), accounts, "c1", "clientmountd", "token", req, nil); err != nil || r.seconds[0] != 700 {
			t.Errorf("%v %v", err, r.seconds)
		}
	})
}

// Without a usable directory, the daemon uses the new token in memory, tries again to store it, and
// reports that.
func TestStateDirectory(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	mount := func(t *testing.T, dir, options string, flags uintptr) {
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		spoil  func(t *testing.T, dir string)
		repair func(dir string) error
		text   string
	}{
		"full": {
			func(t *testing.T, dir string) {
				mount(t, dir, "size=4k,mode=0700", 0)
				write(t, dir, "full", strings.Repeat("x", 4096), 0o600)
			},
			func(dir string) error { return os.Remove(filepath.Join(dir, "full")) }, "no space left on device",
		},
		"read-only": {
			func(t *testing.T, dir string) { mount(t, dir, "mode=0700", unix.MS_RDONLY) },
			func(dir string) error { return unix.Mount("", dir, "", unix.MS_REMOUNT, "mode=0700") }, "read-only file system",
		},
		"writable by others": {
			func(t *testing.T, dir string) {
				if err := os.Chmod(dir, 0o777); err != nil {
					t.Fatal(err)
				}
			},
			func(dir string) error { return os.Chmod(dir, 0o700) }, "is writable by other users",
		},
		"a symlink": {
			func(t *testing.T, dir string) {
				if err := errors.Join(os.Remove(dir), os.Symlink("/tmp", dir)); err != nil {
					t.Fatal(err)
				}
			},
			os.Remove, "is a symbolic link",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *renewed) {
				dir := r.o.Renewal.Directory
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				tt.spoil(t, dir)
				defer unix.Unmount(dir, unix.MNT_DETACH)
				first := r.issue(week)
				r.give(first)
				r.start()
				r.pass(week * 86 / 100)
				r.revoked[first] = true
				if err := r.get(); err != nil {
					t.Errorf("the new token is not used: %v", err)
				}
				if s := r.last(); s.Condition != TokenValid || !strings.Contains(s.Unsaved, tt.text) || s.Hint == "" || s.File != "" || s.Renewals != 1 {
					t.Errorf("%+v", s)
				}
				if list, _ := filepath.Glob(filepath.Join(dir, StoredToken+"*")); len(list) > 0 {
					t.Errorf("%v is left", list)
				}
				if err := tt.repair(dir); err != nil {
					t.Fatal(err)
				}
				r.pass(2 * time.Hour)
				if s := r.last(); s.Unsaved != "" || s.Hint != "" || s.File != r.o.Renewal.file() || r.count("POST") != 1 {
					t.Errorf("%+v %v", s, r.requests)
				}
			})
		})
	}
}

// inOwnNamespace runs the calling test again in a process with a private mount namespace, and
// reports whether this process is that one.
func inOwnNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("KUBE_TEST_NAMESPACE") == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can create a namespace")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "KUBE_TEST_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this container may not create a namespace")
	}
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("in its own namespace: %v\n%s", err, out)
	}
	return false
}
