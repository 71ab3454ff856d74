package client_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

func TestDescribe(t *testing.T) {
	c, _ := open(t, false, nil)
	d, err := c.Describe(t.Context())
	if err != nil || d.Node != "node-1" || d.State != "PreRun" || d.Status != "Completed" || d.Err != nil || len(d.Destinations) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if len(d.Storage) != 2 || d.Storage[0].Err != nil || d.Storage[0].Unsupported || !d.Storage[1].Unsupported || hint.Of(d.Storage[1].Err) == "" {
		t.Errorf("%+v", d.Storage)
	}
	if l := d.Limits; l.MaxWait != time.Hour || l.MovementsUsed == nil || *l.MovementsUsed != 0 || l.Movements != 5000 {
		t.Errorf("%+v", d.Limits)
	}
	describe := func(workflow string) (client.Description, error) {
		c, _ := open(t, false, func(o *client.Options) { o.Workflow = workflow })
		return c.Describe(t.Context())
	}
	if _, err := describe("gone"); kindOf(err) != client.NotFound || !strings.Contains(hint.Of(err), "must be your own") {
		t.Error(err)
	}
	if d, err := describe("late"); err != nil || kindOf(d.Err) != client.Failed || hint.Of(d.Err) == "" || len(d.Storage) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := describe("partial"); err != nil || kindOf(d.StorageErr) != client.Unreachable || kindOf(d.DestinationsErr) != client.Unreachable || d.Limits.MovementsUsed != nil {
		t.Errorf("%+v, %v", d, err)
	}
}

// Daemons without version 2, and without the call.
func TestDescribeOldDaemon(t *testing.T) {
	old, _ := open(t, true, nil)
	before, _ := open(t, false, func(o *client.Options) { o.Workflow = "before" })
	for _, c := range []*client.Client{old, before} {
		if _, err := c.Describe(t.Context()); !errors.Is(err, client.ErrOldDaemon) {
			t.Error(err)
		}
	}
}

// ConnectError distinguishes why the socket cannot be reached.
func TestConnectError(t *testing.T) {
	c, d := open(t, false, nil)
	if _, err := c.Version(t.Context()); err != nil || c.ConnectError() != nil {
		t.Errorf("%v, %v", err, c.ConnectError())
	}
	d.Stop()
	for path, want := range map[string]error{d.Socket: os.ErrNotExist, "/dev/null": syscall.ECONNREFUSED} {
		c, _ := open(t, false, func(o *client.Options) { o.Socket = path })
		if _, err := c.Version(t.Context()); err == nil || !errors.Is(c.ConnectError(), want) {
			t.Errorf("%s: %v, %v", path, err, c.ConnectError())
		}
	}
}
