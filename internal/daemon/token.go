package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/kube"
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
