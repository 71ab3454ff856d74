package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// tokenChanged logs a change of the state of the token, and passes it on to the service. A failed
// renewal is retried for days, so it is a warning only when half of the time for it has passed.
func (p *Process) tokenChanged(s kube.TokenState) {
	was := p.token
	p.token = s
	account, expires := s.Account, stamp(s.Expires)
	if s.Renewals > was.Renewals {
		p.Log.Info("the token was renewed", "account", account, "expires", expires, "next", stamp(s.Renewal), EventID(EventTokenRenewed))
	}
	switch {
	case s.Unsaved != "" && s.Unsaved != was.Unsaved:
		p.Log.Warn("the renewed token cannot be stored; a restart would use an older one; retrying", "account", account, "expires", expires, "error", s.Unsaved, "hint", s.Hint, EventID(EventTokenNotRenewed))
	case s.Unsaved == "" && was.Unsaved != "" && s.Expires.Equal(was.Expires):
		p.Log.Info("the renewed token is stored", "account", account, "expires", expires, "file", s.File, EventID(EventTokenRenewed))
	}
	switch {
	case s.Condition == kube.TokenExpired && was.Condition != kube.TokenExpired:
		p.Log.Error("the token has expired", "account", account, "expires", expires, "file", s.File, "hint", s.Hint, EventID(EventTokenExpired))
	case s.Error != "" && s.Failures > was.Failures:
		level := slog.LevelDebug
		switch {
		case s.Condition == kube.TokenFailing:
			level = slog.LevelWarn
		case was.Error == "":
			level = slog.LevelInfo
		}
		p.Log.Log(context.Background(), level, "the token cannot be renewed; retrying", "account", account, "expires", expires, "error", s.Error, "next", stamp(s.Renewal), "hint", s.Hint, EventID(EventTokenNotRenewed))
	}
	if o, ok := p.service.(TokenObserver); ok {
		o.TokenChanged(s)
	}
}

// stamp returns a time for log records, "never" for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// tokenTextLimit bounds each text of a mountstate.Token, in bytes.
const tokenTextLimit = 300

// DescribeToken returns the state of a token for reports. before is the last description, or nil.
func DescribeToken(now kube.TokenState, before *mountstate.Token) *mountstate.Token {
	t := &mountstate.Token{
		Identity: string(now.Kind), Account: now.Account, File: now.File, Condition: string(now.Condition),
		Error: now.Error, Hint: now.Hint, Expires: mountstate.Known(now.Expires), Renewal: mountstate.Known(now.Renewal),
	}
	if now.Condition == kube.TokenValid && now.Unsaved != "" {
		t.Condition, t.Error = mountstate.TokenUnsaved, now.Unsaved
	}
	if t.Condition != mountstate.TokenValid {
		since := time.Now()
		if before != nil && before.Condition == t.Condition && before.Since != nil {
			since = *before.Since
		}
		t.Since = &since
	}
	t.Error = text.Line(text.Shorten(t.Error, tokenTextLimit))
	return t
}

// TokenRecordName is the name of the file in the state directory with the state of the token of a
// daemon that runs only while it is needed. It never contains the token.
const TokenRecordName = "token.json"

const (
	tokenRecordVersion = 1
	tokenRecordLimit   = 64 << 10 // bytes
)

// tokenRecord is the content of that file.
type tokenRecord struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	// Warn is when the token needs attention if it has not been renewed; absent: never.
	Warn  *time.Time       `json:"warn,omitempty"`
	Token mountstate.Token `json:"token"`
}

// TokenRecord records the state of the token of a daemon that runs only while it is needed, so that
// it can be reported at any time.
type TokenRecord struct {
	Program, Node string
	Directory     string // the state directory of the daemon
	TokenFile     string // the token file of the daemon; "": none

	last *mountstate.Token
}

// Record records a change. Only a token of the account that the daemon has on this node is recorded.
func (r *TokenRecord) Record(s kube.TokenState) error {
	if s.Kind != kube.TokenPerNode {
		if err := os.Remove(r.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if r.last == nil {
		if old, err := r.read(); err == nil {
			r.last = &old.Token
		}
	}
	r.last = DescribeToken(s, r.last)
	data, err := json.Marshal(tokenRecord{tokenRecordVersion, r.Node, mountstate.Known(s.Warn), *r.last})
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if old, err := safepath.ReadFile(r.path(), tokenRecordLimit, unix.O_NOFOLLOW, nil); err == nil && bytes.Equal(old, data) {
		return nil // as after most starts of the daemon
	}
	return safepath.StoreSecret(r.Directory, TokenRecordName, data)
}

func (r *TokenRecord) path() string { return filepath.Join(r.Directory, TokenRecordName) }

// read reads the file. Its directory belongs to the user of the daemon, and the caller need not trust
// this user.
func (r *TokenRecord) read() (*tokenRecord, error) {
	data, err := safepath.ReadFile(r.path(), tokenRecordLimit, unix.O_NOFOLLOW, nil)
	if err != nil {
		return nil, err
	}
	doc, err := text.ParseJSON[tokenRecord](data, tokenRecordVersion)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.path(), err)
	}
	t := &doc.Token
	if !slices.Contains(mountstate.TokenConditions, t.Condition) {
		return nil, fmt.Errorf("%s has an unknown condition", r.path())
	}
	for _, s := range []*string{&doc.Node, &t.Identity, &t.Account, &t.File, &t.Error, &t.Hint} {
		*s = text.Clip(text.Line(*s), tokenTextLimit)
	}
	return doc, nil
}

// Read returns the recorded state at the time now, or nil if none is recorded, or if another token
// has been installed since. The daemon may not have run for long, so the state follows from the
// times in the record as well.
func (r *TokenRecord) Read(now time.Time) (*mountstate.Token, error) {
	doc, err := r.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the state of the token of %s: %w", r.Program, err)
	}
	t := &doc.Token
	if r.replaced(t) {
		return nil, nil
	}
	renewal := kube.Renewal{Node: cmp.Or(doc.Node, "NODE"), Daemon: r.Program}
	switch {
	case t.Expires != nil && !now.Before(*t.Expires):
		if t.Condition != mountstate.TokenExpired {
			t.Condition, t.Since, t.Error, t.Hint = mountstate.TokenExpired, t.Expires, "", renewal.Reinstall()
		}
	case doc.Warn == nil || now.Before(*doc.Warn):
	case t.Condition == mountstate.TokenValid:
		t.Condition, t.Since, t.Error = mountstate.TokenFailing, doc.Warn, r.Program+" has not run since the renewal was due"
		t.Hint = fmt.Sprintf("start it: systemctl start %[1]s.service; to renew the token without jobs: systemctl enable --now %[1]s.timer", r.Program)
	case t.Condition == mountstate.TokenRetrying:
		t.Condition, t.Since = mountstate.TokenFailing, doc.Warn
	}
	return t, nil
}

// replaced reports whether the token file contains a token of another account than the recorded
// one, or one that expires later.
func (r *TokenRecord) replaced(t *mountstate.Token) bool {
	if r.TokenFile == "" {
		return false
	}
	claims, err := kube.ClaimsOfFile(r.TokenFile)
	if err != nil {
		return false
	}
	return claims.Subject != t.Account || claims.Expires.IsZero() || t.Expires != nil && claims.Expires.After(*t.Expires)
}

// RecordOf returns the record of a daemon with the default paths, below a root directory.
func RecordOf(root, program string) *TokenRecord {
	return &TokenRecord{Program: program, Directory: root + stateDirectory(program), TokenFile: root + "/etc/" + program + "/service.token"}
}
