package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Renewal contains what a daemon needs to renew its own token: one of the account that it has on
// this node only, which expires. Other credentials are never renewed. The zero value renews
// nothing.
type Renewal struct {
	Node, Daemon string // the account has the name of the daemon, in the namespace of the node
	// Directory is the state directory, where the renewed token is stored.
	Directory string
	// Report is called with each change by KeepToken; it must not block. nil: not called.
	Report func(TokenState)
}

// StoredToken is the name of the renewed token in the state directory.
const StoredToken = "service.token"

func (r Renewal) enabled() bool { return r.Node != "" && r.Daemon != "" && r.Directory != "" }

func (r Renewal) file() string { return filepath.Join(r.Directory, StoredToken) }

// own reports whether a token is of the account of this daemon on this node.
func (r Renewal) own(c Claims) bool { return c.Subject == api.ServiceAccount(r.Node, r.Daemon) }

// renewable reports whether the daemon renews a token. One that depends on a Pod or a Secret is
// renewed by whoever manages that.
func (r Renewal) renewable(c Claims) bool {
	return r.enabled() && r.own(c) && c.Life() > 0 && !c.Bound
}

// Reinstall returns what the administrator runs to give this node a new token instead of an expired
// one.
func (r Renewal) Reinstall() string {
	return "run on the administrator's host: nnf-deploy install --no-programs --identity per-node " + r.Node
}

// Replace is Reinstall for a token that the API server refuses although it has not expired. Without
// --force, the node would keep it.
func (r Renewal) Replace() string {
	return strings.Replace(r.Reinstall(), " --identity", " --force --identity", 1)
}

// TokenKind is the kind of account of a token.
type TokenKind string

// The kinds.
const (
	TokenPerNode TokenKind = "per-node" // the account of the daemon on this node only
	TokenShared  TokenKind = "shared"   // a service account that all nodes share
	TokenOther   TokenKind = "other"    // anything else
)

func (r Renewal) kind(c Claims) TokenKind {
	switch {
	case r.own(c):
		return TokenPerNode
	case strings.HasPrefix(c.Subject, api.ServiceAccountPrefix) && !strings.HasSuffix(c.Subject, ":"+r.Daemon):
		return TokenShared
	}
	return TokenOther
}

// TokenCondition is the condition of a token.
type TokenCondition string

// The conditions.
const (
	TokenValid    TokenCondition = "valid"    // no action is needed
	TokenRetrying TokenCondition = "retrying" // a renewal has failed, and there is enough time left
	TokenFailing  TokenCondition = "failing"  // renewals fail, and half of the time for them has passed
	TokenExpired  TokenCondition = "expired"  // the API server no longer accepts the token
)

// TokenState is what a daemon knows about its token. It never contains the token. It is comparable.
type TokenState struct {
	Kind      TokenKind
	Account   string    // user name in the token; empty: not known
	File      string    // where the token in use is; empty: in memory only
	Expires   time.Time // zero: never
	Renewal   time.Time // when the daemon renews it next; zero: never
	Warn      time.Time // when it needs attention if it has not been renewed; zero: never
	Condition TokenCondition
	Error     string // why the last renewal has failed
	Unsaved   string // why the token in use could not be stored
	Hint      string // what the administrator should do; empty: nothing
	Renewals  uint64 // since the start
	Failures  uint64 // since the start
}

// Token returns the state of the token in use as its claims describe it; ok is false if the
// credentials are not a token file.
func (c *Client) Token() (s TokenState, ok bool) {
	if c.token == nil {
		return s, false
	}
	b, err := c.token.bearer()
	if err != nil {
		return s, false
	}
	return c.token.state(b), true
}

func (t *tokenTransport) state(b bearer) TokenState {
	s := TokenState{
		Kind: t.renewal.kind(b.claims), Account: printable(b.claims.Subject), File: t.fileOf(b.text),
		Expires: b.claims.Expires, Condition: TokenValid,
	}
	if t.renewal.renewable(b.claims) {
		s.Renewal, s.Warn = dueAt(b), warnAt(b)
	}
	return s
}

// fileOf returns the file that contains a token, or "".
func (t *tokenTransport) fileOf(token string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.where(token)
}

func (t *tokenTransport) where(token string) string {
	switch {
	case token == t.given.text:
		return t.path
	case token == t.renewed.text && t.stored:
		return t.renewal.file()
	}
	return ""
}

// dueAt returns when to renew a token: at 75 to 85 % of its life. The time depends on the token, so
// nodes that got their tokens together spread their requests, and a restart does not change it.
func dueAt(b bearer) time.Time {
	h := fnv.New32a()
	_, _ = h.Write([]byte(b.text))
	share := 0.75 + 0.1*float64(h.Sum32())/(1<<32)
	return b.claims.Issued.Add(time.Duration(share * float64(b.claims.Life())))
}

// warnAt returns when failed renewals need attention: in the middle of the time that is left for
// them.
func warnAt(b bearer) time.Time {
	due := dueAt(b)
	return due.Add(b.claims.Expires.Sub(due) / 2)
}

// serverTime is the time at the API server, which issues tokens and decides when they expire. The
// clock of the node may be wrong.
type serverTime struct {
	date  time.Time // in a response
	local time.Time // when it arrived, with the monotonic clock
}

// now returns the time at the server. If it is not known, it is that of the node.
func (s serverTime) now() (now time.Time, known bool) {
	if s.local.IsZero() {
		return time.Now(), false
	}
	return s.date.Add(time.Since(s.local)), true
}

// clockStep is the smallest change of the time at the server, apart from that which passes, that
// wakes KeepToken: the node was suspended, or a clock was set.
const clockStep = 10 * time.Second

// noteTime notes the header Date of a response. Without a valid one, the clock of the node counts.
func (t *tokenTransport) noteTime(header string) {
	now := time.Now()
	date, err := http.ParseTime(header)
	if err != nil {
		date = now.Round(0)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before, known := t.server.now()
	t.server = serverTime{date, now}
	if step := date.Sub(before); !known || step.Abs() > clockStep {
		t.notify()
	}
}

func (t *tokenTransport) now() (now time.Time, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.server.now()
}

// loadStored reads the stored token, if the daemon renews the given one. The caller holds the lock.
func (t *tokenTransport) loadStored() {
	t.forgetRefused()
	if !t.renewal.enabled() {
		return
	}
	if t.renewed.text == "" {
		b, err := t.renewal.read()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return
		case err != nil:
			t.log.Warn("the stored token cannot be used; using the token file", "error", err)
			return
		}
		t.renewed, t.stored = b, true
	}
	if why := t.foreign(); why != "" && why != t.ignored {
		t.ignored = why
		t.log.Info("the stored token is not used", "file", t.renewal.file(), "reason", why)
	}
}

// foreign returns why the token that the daemon has renewed does not replace the given one.
func (t *tokenTransport) foreign() string {
	given, renewed := t.given.claims, t.renewed.claims
	switch {
	case !renewed.SameAccount(given) && given.Subject == renewed.Subject:
		return "the account was created again since"
	case !renewed.SameAccount(given):
		return fmt.Sprintf("it is of %q, and the token file of %q", printable(renewed.Subject), printable(given.Subject))
	}
	return ""
}

// read returns the stored token. Only the daemon's user may be able to read or change it.
func (r Renewal) read() (bearer, error) {
	path := r.file()
	data, err := safepath.ReadFile(path, maxTokenFile, syscall.O_NOFOLLOW, func(info fs.FileInfo) error {
		switch e := safepath.EntryOf(info); {
		case int(e.UID) != os.Geteuid():
			return fmt.Errorf("%s is owned by uid %d, not by this daemon's uid %d", path, e.UID, os.Geteuid())
		case e.Mode&0o077 != 0:
			return fmt.Errorf("%s can be read or changed by other users (mode %04o)", path, e.Mode&0o7777)
		}
		return nil
	})
	if err != nil {
		return bearer{}, err
	}
	token, err := parseToken(path, data)
	if err != nil {
		return bearer{}, err
	}
	b := newBearer(token)
	if !r.own(b.claims) {
		return b, fmt.Errorf("%s is not a token of %s on this node", path, r.Daemon)
	}
	return b, nil
}

// write stores a token atomically. It creates the directory if its parent exists.
func (r Renewal) write(token string) error {
	return safepath.StoreSecret(r.Directory, StoredToken, []byte(token+"\n"))
}

// adopt uses a renewed token from now on.
func (t *tokenTransport) adopt(b bearer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renewed, t.stored, t.ignored = b, false, ""
	t.forgetRefused()
	t.choose()
}

// save stores the renewed token unless it is stored. If the daemon does not use it, it is not needed.
func (t *tokenTransport) save() error {
	t.mu.Lock()
	b, needed := t.renewed, t.unsaved()
	t.mu.Unlock()
	if !needed {
		return nil
	}
	err := t.renewal.write(b.text)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stored = err == nil && t.renewed.text == b.text
	return err
}

// unsaved reports whether the token in use is only in memory. The caller holds the lock.
func (t *tokenTransport) unsaved() bool {
	return !t.stored && t.used.text == t.renewed.text && t.used.text != t.given.text
}

// TokenRequest is a request for a token of a service account, and its result (KEP-1205).
type TokenRequest struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Spec       TokenRequestSpec   `json:"spec"`
	Status     TokenRequestStatus `json:"status,omitzero"`
}

// TokenRequestSpec describes the token.
type TokenRequestSpec struct {
	Seconds int64      `json:"expirationSeconds"`
	Bound   *ObjectRef `json:"boundObjectRef,omitempty"`
}

// TokenRequestStatus contains the token.
type TokenRequestStatus struct {
	Token   string      `json:"token"`
	Expires metav1.Time `json:"expirationTimestamp"`
}

// NewTokenRequest returns a request for a token that is valid for life.
func NewTokenRequest(life time.Duration) TokenRequest {
	return TokenRequest{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest", Spec: TokenRequestSpec{Seconds: int64(life / time.Second)}}
}

// MinTokenLife is the shortest life of a token that API servers grant.
const MinTokenLife = 10 * time.Minute

var accounts = Resource{Version: "v1", Plural: "serviceaccounts", Kind: "ServiceAccount"}

// Delays between failed renewals, before jitter.
const (
	firstRenewalRetry   = time.Minute
	longestRenewalRetry = time.Hour
)

// shortestPause is the number of renewals in the life of a token that are not exceeded if the time
// in responses is wrong, such as that of a proxy.
const shortestPause = 20

// renewer renews the token of a client. Its fields belong to the goroutine of KeepToken.
type renewer struct {
	c        *Client
	t        *tokenTransport
	token    string    // to which the fields below refer
	newest   Claims    // of the tokens of this account so far
	failures int       // consecutive ones
	next     time.Time // of the next attempt after a failure, with the monotonic clock
	pause    time.Time // of the earliest next renewal, with the monotonic clock
	failure  error
	ended    bool // the server has refused the token when it had expired
	unsaved  error
	granted  time.Duration // the life that the server has granted instead of a longer one, when that was logged
	state    TokenState    // reported last
	renewals uint64
	failed   uint64
}

// KeepToken renews the token of the daemon's account on this node until ctx is done. The daemon
// requests the next token at about 80 % of the life of the current one, uses it immediately and
// stores it for the next start. For other credentials, KeepToken waits until the token file
// contains one that it renews. It has at most one timer, and none for credentials that it does not renew.
func (c *Client) KeepToken(ctx context.Context) {
	if c.token == nil {
		return
	}
	r := renewer{c: c, t: c.token}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.t.wake:
		}
		timer.Stop()
		if wait := r.step(ctx); wait >= 0 {
			timer.Reset(wait)
		}
	}
}

// step does what is due, and returns when to call it again; a negative time means: not until
// something changes.
func (r *renewer) step(ctx context.Context) time.Duration {
	b, err := r.t.bearer()
	if err != nil {
		return -1 // the next request that finds a token wakes KeepToken
	}
	if b.text != r.token {
		r.token, r.unsaved, r.ended = b.text, nil, false
		// The other token of this daemon, which replaces a refused one, is no reason to try earlier.
		if !b.claims.SameAccount(r.newest) || b.claims.Newer(r.newest) {
			r.newest, r.failures, r.next, r.failure = b.claims, 0, time.Time{}, nil
		} else if r.failure != nil {
			r.report(b, r.state.Condition, r.state.Renewal)
		}
	}
	if !r.t.renewal.renewable(b.claims) {
		r.report(b, TokenValid, time.Time{})
		return -1
	}
	now, known := r.t.now()
	due, again := dueAt(b), time.Until(r.next)
	switch {
	case r.ended && known && !now.Before(b.claims.Expires):
		return -1
	case again > 0 && r.failure != nil && (known || !now.Before(due)):
		return again
	case again > 0 && r.unsaved != nil && now.Before(due):
		return min(again, due.Sub(now))
	case now.Before(due):
		r.failure = nil
		return r.save(b, due, now)
	case time.Until(r.pause) > 0:
		return time.Until(r.pause)
	case !known:
		// The clock of the node may be wrong: any response contains the time at the server.
		err := r.c.send(ctx, op{verb: "get", r: Resource{Kind: "version"}}, r.c.rest.Get().AbsPath("/version"), nil)
		if _, known = r.t.now(); known {
			return 0
		}
		return r.fail(ctx, b, err)
	}
	fresh, err := r.request(ctx, b)
	if err != nil {
		return r.fail(ctx, b, err)
	}
	r.renewals++
	r.t.adopt(fresh)
	r.token, r.newest, r.failures, r.next, r.failure = fresh.text, fresh.claims, 0, time.Time{}, nil
	r.pause = time.Now().Add(fresh.claims.Life() / shortestPause)
	now, _ = r.t.now()
	return max(r.save(fresh, dueAt(fresh), now), 0)
}

// save stores a renewed token that is not due, and reports the state.
func (r *renewer) save(b bearer, due, now time.Time) time.Duration {
	wait := due.Sub(now)
	if r.unsaved = r.t.save(); r.unsaved != nil {
		wait = min(wait, r.delay(b, now))
	} else {
		r.failures = 0
	}
	r.report(b, TokenValid, due)
	return wait
}

// fail notes that an attempt has failed.
func (r *renewer) fail(ctx context.Context, b bearer, err error) time.Duration {
	if ctx.Err() != nil {
		return -1
	}
	r.failure = err
	r.failed++
	now, known := r.t.now()
	wait, condition := r.delay(b, now), TokenRetrying
	left, warn := b.claims.Expires.Sub(now), warnAt(b).Sub(now)
	switch {
	case !known:
	case left <= 0:
		// The time in responses may be wrong, so only the server decides that there is nothing to renew.
		if condition = TokenExpired; apierrors.IsUnauthorized(err) {
			r.ended = true
			r.report(b, condition, time.Time{})
			return -1
		}
	case warn <= 0:
		condition, wait = TokenFailing, min(wait, left)
	default:
		wait = min(wait, warn)
	}
	r.next = time.Now().Add(wait)
	r.report(b, condition, now.Add(wait))
	return wait
}

// delay returns when to try again after a failure, and notes it. It doubles with each failure, up
// to a tenth of the time that is left until the token expires.
func (r *renewer) delay(b bearer, now time.Time) time.Duration {
	d := min(firstRenewalRetry<<min(r.failures, 10), longestRenewalRetry)
	if left := b.claims.Expires.Sub(now) / 10; left > 0 {
		d = min(d, max(left, time.Second))
	}
	r.failures++
	d += rand.N(d/5+1) - d/10
	r.next = time.Now().Add(d)
	return d
}

// report calls Report if the state has changed.
func (r *renewer) report(b bearer, condition TokenCondition, next time.Time) {
	s := r.t.state(b)
	s.Condition, s.Renewal, s.Renewals, s.Failures = condition, next, r.renewals, r.failed
	switch {
	case condition == TokenExpired:
		s.Hint = r.t.renewal.Reinstall()
	case r.failure != nil:
		s.Hint = r.hint(r.failure)
	case r.unsaved != nil:
		s.Hint = "check that " + r.t.renewal.Directory + " is a directory of this daemon, and that its file system is writable and has free space"
	}
	if r.failure != nil {
		s.Error = clip(r.failure.Error())
	}
	if r.unsaved != nil {
		s.Unsaved = clip(r.unsaved.Error())
	}
	if s != r.state {
		r.state = s
		if f := r.t.renewal.Report; f != nil {
			f(s)
		}
	}
}

// hint returns what the administrator should do about a failed renewal.
func (r *renewer) hint(err error) string {
	switch {
	case IsForbidden(err):
		return "the account may not request its own token; run on the administrator's host: nnf-deploy identities apply " + r.t.renewal.Node
	case apierrors.IsUnauthorized(err):
		return r.t.renewal.Replace()
	}
	return ""
}

// errShorter means that the server only grants a token that expires before the present one.
var errShorter = errors.New("the API server grants a shorter life than the present token has left")

// request returns the next token, for the same time as the present one, or as that of the file if
// the server has granted less since. The server is trusted less here than elsewhere, because a
// wrong token locks the node out: its answer must be a newer token of the same account.
func (r *renewer) request(ctx context.Context, b bearer) (bearer, error) {
	r.t.mu.Lock()
	wanted := b.claims.Life()
	if b.claims.SameAccount(r.t.given.claims) {
		wanted = max(wanted, r.t.given.claims.Life())
	}
	r.t.mu.Unlock()
	wanted = max(wanted, MinTokenLife)
	a := r.t.renewal
	req := NewTokenRequest(wanted)
	if b.claims.Node.Name != "" {
		req.Spec.Bound = &b.claims.Node
	}
	var answer TokenRequest
	if err := r.c.CreateFor(ctx, accounts, a.Node, a.Daemon, "token", req, &answer); err != nil {
		return bearer{}, err
	}
	if len(answer.Status.Token) > maxTokenFile {
		return bearer{}, fmt.Errorf("the token that the API server returned has more than %d bytes", maxTokenFile)
	}
	token, err := parseToken("the token that the API server returned", []byte(answer.Status.Token))
	if err != nil {
		return bearer{}, err
	}
	fresh := newBearer(token)
	switch {
	case !a.renewable(fresh.claims):
		return bearer{}, fmt.Errorf("the API server returned a token of %q that cannot be renewed, instead of one of %q", printable(fresh.claims.Subject), printable(b.claims.Subject))
	case !fresh.claims.SameAccount(b.claims):
		return bearer{}, errors.New("the API server returned a token of another account with the same name")
	case !fresh.claims.Issued.After(b.claims.Issued):
		return bearer{}, fmt.Errorf("the API server returned an old token, issued at %s", fresh.claims.Issued.Format(time.RFC3339))
	}
	life := fresh.claims.Life()
	if life < wanted-wanted/20 && life != r.granted {
		r.granted = life
		r.c.o.Log.Warn("the API server grants tokens for a shorter time than requested; the daemon renews them accordingly",
			"requested", wanted, "granted", life, "hint", "check --service-account-max-token-expiration of the API server")
	}
	if !fresh.claims.Expires.After(b.claims.Expires) {
		return bearer{}, fmt.Errorf("%w: it would expire at %s", errShorter, fresh.claims.Expires.Format(time.RFC3339))
	}
	return fresh, nil
}

// refusedText returns why the API server has refused the token in use, and what to do about it, or
// "" if neither is known.
func (t *tokenTransport) refusedText() string {
	b, err := t.bearer()
	if err != nil {
		return ""
	}
	own := t.renewal.enabled() && t.renewal.own(b.claims)
	if now, known := t.now(); !known || b.claims.Expires.IsZero() || now.Before(b.claims.Expires) {
		if own {
			return "they may have been revoked; " + t.renewal.Replace()
		}
		return ""
	}
	text := fmt.Sprintf("the token in %s expired at %s", cmp.Or(t.fileOf(b.text), "memory"), b.claims.Expires.Format(time.RFC3339))
	if own {
		text += "; " + t.renewal.Reinstall()
	}
	return text
}
