package server

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// The daemon records the state of its token, and its status shows that while it does not run.
func TestStatusShowsToken(t *testing.T) {
	c := new(Configuration)
	c.StateDir, c.Socket.Path = filepath.Join(t.TempDir(), "state"), "/run/x.sock"
	show := func(err error) *systemd.Status {
		s := &systemd.Status{Paths: map[string]string{}}
		describe(c, err, s)
		return s
	}
	if s := show(nil); s.Token != nil || s.Paths["socket"] != "/run/x.sock" {
		t.Errorf("%+v", s)
	}
	var d daemon.TokenObserver = &process{p: &daemon.Process{Log: slog.New(slog.DiscardHandler)}, token: c.tokenRecord("c1")}
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	d.TokenChanged(kube.TokenState{Kind: kube.TokenPerNode, Account: "a", Expires: expires, Condition: kube.TokenFailing, Error: "no route", Hint: "do it"})
	if k := show(nil).Token; k == nil || k.Condition != mountstate.TokenFailing || !k.Expires.Equal(expires) || k.Error != "no route" || k.Hint != "do it" {
		t.Errorf("%+v", k)
	}
	if s := show(errors.New("invalid")); s.Token != nil {
		t.Errorf("%+v", s)
	}
	if err := os.WriteFile(filepath.Join(c.StateDir, daemon.TokenRecordName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if k := show(nil).Token; k == nil || k.Condition != mountstate.TokenUnknown || k.Error == "" {
		t.Errorf("%+v", k)
	}
}
