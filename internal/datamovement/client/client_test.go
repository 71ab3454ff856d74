package client_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client/fakedaemon"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a client and a fake daemon.
func open(t *testing.T, old bool, change func(*client.Options)) (*client.Client, *fakedaemon.Daemon) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm") // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, err := fakedaemon.Start(filepath.Join(dir, "s"), old)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	o := client.Options{Socket: d.Socket, Workflow: "job", Namespace: "default", Interval: 10 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	c, err := client.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, d
}

func kindOf(err error) client.Kind {
	e := (*client.Error)(nil)
	if !errors.As(err, &e) {
		return -1
	}
	return e.Kind
}

func each(t *testing.T, f func(t *testing.T, old bool)) {
	t.Run("new", func(t *testing.T) { f(t, false) })
	t.Run("old", func(t *testing.T) { f(t, true) })
}

func copyOf(t *testing.T, c *client.Client, sources ...string) []string {
	t.Helper()
	r := client.Request{Slots: -1, MaxSlots: -1}
	for _, s := range sources {
		r.Pairs = append(r.Pairs, client.Pair{Source: s, Destination: "/lus/"})
	}
	made, err := c.Copy(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range made.Pairs {
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		ids = append(ids, p.ID)
	}
	return ids
}

func TestLifecycle(t *testing.T) {
	each(t, func(t *testing.T, old bool) {
		c, _ := open(t, old, nil)
		ids := copyOf(t, c, "/mnt/hold", "/mnt/fail")
		var states []client.State
		ctx, cancel := context.WithCancel(t.Context())
		_, err := c.Follow(ctx, ids[:1], func(all []client.Movement) { states = append(states, all[0].State); cancel() })
		if kindOf(err) != client.Interrupted || !slices.Equal(states, []client.State{client.Running}) {
			t.Errorf("%v %v", states, err)
		}
		if err := c.Delete(t.Context(), ids[:1]); kindOf(err) != client.Failed {
			t.Errorf("a running copy was deleted: %v", err)
		}
		if err := c.Cancel(t.Context(), ids[:1]); err != nil {
			t.Error(err)
		}
		all, err := c.Follow(t.Context(), ids, nil)
		if err != nil || len(all) != 2 || all[0].Result != client.Cancelled || all[1].Result != client.Failure || all[1].Message == "" {
			t.Errorf("%+v %v", all, err)
		}
		if list, err := c.List(t.Context()); err != nil || len(list) != 2 || list[0].ID != ids[0] {
			t.Errorf("%+v %v", list, err)
		}
		if err := c.Delete(t.Context(), ids); err != nil {
			t.Error(err)
		}
		if _, err := c.Status(t.Context(), ids[:1]); kindOf(err) != client.NotFound {
			t.Error(err)
		}
		if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%+v %v", list, err)
		}
		if c.Old() != old {
			t.Errorf("old: %v", c.Old())
		}
	})
}

// The daemon sends the statuses of many copies in several messages.
func TestListOfMany(t *testing.T) {
	each(t, func(t *testing.T, old bool) {
		c, _ := open(t, old, nil)
		ids := copyOf(t, c, slices.Repeat([]string{"/mnt/hold"}, 150)...)
		if list, err := c.List(t.Context()); err != nil || len(list) != len(ids) {
			t.Errorf("%d of %d, %v", len(list), len(ids), err)
		}
		if list, err := c.Status(t.Context(), ids); err != nil || len(list) != len(ids) {
			t.Errorf("%d of %d, %v", len(list), len(ids), err)
		}
	})
}

// A large batch has more time than a small one.
func TestLimitOfBatch(t *testing.T) {
	c, d := open(t, false, nil)
	copyOf(t, c, "/mnt/hold")
	one := d.CreateLimit()
	copyOf(t, c, slices.Repeat([]string{"/mnt/hold"}, 150)...)
	if many := d.CreateLimit(); one <= 30*time.Second || one > 2*time.Minute || many < one+time.Hour {
		t.Errorf("%v for one copy, %v for 150", one, many)
	}
}

// The client tries version 2 only once with a daemon that does not support it.
func TestVersion2IsTriedOnce(t *testing.T) {
	c, d := open(t, true, nil)
	ids := copyOf(t, c, "/mnt/hold")
	if _, err := c.Status(t.Context(), ids); err != nil || !c.Old() {
		t.Error(c.Old(), err)
	}
	for _, call := range d.Log() {
		if strings.HasPrefix(call, "v2") {
			t.Error(call)
		}
	}
}

// Without progress, a wait is a single call that returns at the end of the copy.
func TestQuietWait(t *testing.T) {
	c, d := open(t, false, nil)
	ids := copyOf(t, c, "/mnt/ok")
	if _, err := c.Follow(t.Context(), ids, nil); err != nil {
		t.Fatal(err)
	}
	if log := d.Log(); len(log) != 2 || log[1] != "v2 Wait ["+ids[0]+"]" {
		t.Errorf("%q", log)
	}
	c, d = open(t, true, nil)
	ids = copyOf(t, c, "/mnt/ok")
	if _, err := c.Follow(t.Context(), ids, nil); err != nil {
		t.Fatal(err)
	}
	for _, call := range d.Log()[1:] {
		if call != "v1 Status "+ids[0]+" wait=30" {
			t.Error(call)
		}
	}
}

// Old daemons that respond to a poll immediately are not polled in a tight loop.
func TestPollInterval(t *testing.T) {
	c, d := open(t, true, func(o *client.Options) { o.Interval = 100 * time.Millisecond })
	ids := copyOf(t, c, "/mnt/hold")
	ctx, cancel := context.WithTimeout(t.Context(), 450*time.Millisecond)
	defer cancel()
	if _, err := c.Follow(ctx, ids, func([]client.Movement) {}); kindOf(err) != client.TimedOut {
		t.Error(err)
	}
	if n := len(d.Log()) - 1; n < 1 || n > 5 {
		t.Errorf("%d polls in 450 ms with an interval of 100 ms", n)
	}
}

func TestDaemonRestart(t *testing.T) {
	each(t, func(t *testing.T, old bool) {
		c, d := open(t, old, nil)
		ids := copyOf(t, c, "/mnt/hold")
		seen := make(chan struct{}, 100)
		ended := make(chan error, 1)
		go func() {
			all, err := c.Follow(t.Context(), ids, func([]client.Movement) { seen <- struct{}{} })
			if err == nil && all[0].Result != client.Success {
				err = errors.New(string(all[0].Result))
			}
			ended <- err
		}()
		<-seen
		d.Stop()
		if err := d.Resume(); err != nil {
			t.Fatal(err)
		}
		d.Finish()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestDaemonStaysUnreachable(t *testing.T) {
	each(t, func(t *testing.T, old bool) {
		c, d := open(t, old, func(o *client.Options) { o.RetryTime = 200 * time.Millisecond })
		ids := copyOf(t, c, "/mnt/hold")
		_, err := c.Follow(t.Context(), ids, func([]client.Movement) { go d.Stop() })
		if kindOf(err) != client.Unreachable {
			t.Error(err)
		}
	})
}

// Follow does not wait for a daemon that has never responded.
func TestNoDaemon(t *testing.T) {
	c, d := open(t, false, func(o *client.Options) { o.RetryTime = time.Hour })
	d.Stop()
	_, err := c.Follow(t.Context(), []string{"x"}, nil)
	if kindOf(err) != client.Unreachable || !strings.Contains(hint.Of(err), "systemctl status nnf-dm.socket") {
		t.Error(err)
	}
	if _, err := c.Version(t.Context()); kindOf(err) != client.Unreachable {
		t.Error(err)
	}
	if _, err := c.Copy(t.Context(), client.Request{}); kindOf(err) != client.Unreachable {
		t.Error(err)
	}
}

// Without a workflow the client uses version 1, which needs only the uid.
func TestNoWorkflow(t *testing.T) {
	c, d := open(t, false, func(o *client.Options) { o.Workflow = "" })
	ids := copyOf(t, c, "/mnt/ok")
	if _, err := c.Follow(t.Context(), ids, nil); err != nil {
		t.Error(err)
	}
	for _, call := range d.Log() {
		if strings.HasPrefix(call, "v2") {
			t.Error(call)
		}
	}
	if err := c.Cancel(t.Context(), []string{"batch-1"}); kindOf(err) != client.Invalid {
		t.Error(err)
	}
	if _, err := c.Status(t.Context(), []string{"batch-1"}); kindOf(err) != client.Invalid {
		t.Error(err)
	}
}
