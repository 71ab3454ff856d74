package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Each change of the token is one record; a failure is a warning only when half of the time for a
// renewal has passed.
func TestTokenRecords(t *testing.T) {
	var log bytes.Buffer
	p := &Process{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	expires := time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC)
	s := kube.TokenState{Kind: kube.TokenPerNode, Account: "a", File: "/t", Expires: expires, Condition: kube.TokenValid}
	for _, tt := range []struct {
		change func()
		want   string // start of the record; empty: none
	}{
		{func() {}, ""},
		{func() { s.Condition, s.Error, s.Failures = kube.TokenRetrying, "e1", 1 }, `INFO msg="the token cannot be renewed; retrying"`},
		{func() { s.Error, s.Failures = "e2", 2 }, `DEBUG msg="the token cannot be renewed; retrying"`},
		{func() { s.Condition, s.Failures, s.Hint = kube.TokenFailing, 3, "do it" }, `WARN msg="the token cannot be renewed; retrying"`},
		{func() { s.Failures = 4 }, `WARN msg="the token cannot be renewed; retrying"`},
		{func() { s.Condition, s.Error, s.Hint = kube.TokenExpired, "", "run it" }, `ERROR msg="the token has expired"`},
		{func() { s.Hint = "run" }, ""},
		{func() { s.Condition, s.Hint, s.Expires = kube.TokenValid, "", expires.Add(time.Hour) }, ""},
		{func() { s.Renewals, s.Expires = 1, expires.Add(2*time.Hour) }, `INFO msg="the token was renewed"`},
		{func() { s.Unsaved, s.File = "full", "" }, `WARN msg="the renewed token cannot be stored`},
		{func() { s.Failures++ }, ""},
		{func() { s.Unsaved, s.File = "", "/s" }, `INFO msg="the renewed token is stored"`},
	} {
		log.Reset()
		tt.change()
		p.tokenChanged(s)
		if got := log.String(); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") || strings.Count(got, "\n") > 1 || got != "" && !strings.Contains(got, "event=token-") {
			t.Errorf("%+v\n%swant %s", s, got, tt.want)
		}
	}
}
