package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

func at(uid, rv string) *nnf.DataMovement {
	return &nnf.DataMovement{ObjectMeta: metav1.ObjectMeta{
		Name: "x", Namespace: rabbit, UID: types.UID(uid), ResourceVersion: rv, Labels: map[string]string{api.LabelInitiator: node},
	}}
}

func TestNewer(t *testing.T) {
	for _, tt := range []struct {
		a, b *nnf.DataMovement
		want bool
	}{
		{at("u", "10"), at("u", "9"), true},
		{at("u", "9"), at("u", "10"), false},
		{at("u", "10"), at("u", "10"), false},
		{at("u", "10"), at("v", "9"), true}, // an earlier object of that name
		{at("u", "9"), at("v", "10"), false},
		{at("u", ""), at("u", "9"), false},
		{at("u", "10"), at("u", ""), false},
		{at("u", "b"), at("u", "a"), false},
		{at("u", "18446744073709551615"), at("u", "1"), true},
	} {
		if got := newer(tt.a, tt.b); got != tt.want {
			t.Errorf("%s %s, %s %s: %v", tt.a.UID, tt.a.ResourceVersion, tt.b.UID, tt.b.ResourceVersion, got)
		}
	}
}

// Whatever the order of states from the watch and from requests, a caller never gets an
// older state than before.
func TestFeedNeverGoesBack(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(ctx context.Context, f *feed)
		want string // cached version at the end; empty: read from the API server
	}{
		"nothing":     {func(context.Context, *feed) {}, ""},
		"watch":       {func(ctx context.Context, f *feed) { f.upsert(ctx, at("u", "5")) }, "5"},
		"request":     {func(_ context.Context, f *feed) { f.learn(at("u", "5")) }, "5"},
		"old request": {func(_ context.Context, f *feed) { f.learn(at("u", "5")); wait.Advance(trusted) }, ""},
		"request, then watch": {func(ctx context.Context, f *feed) {
			f.learn(at("u", "5"))
			f.upsert(ctx, at("u", "4"))
			wait.Advance(time.Hour)
		}, "5"},
		"late watch":   {func(ctx context.Context, f *feed) { f.learn(at("u", "5")); f.upsert(ctx, at("u", "4")) }, "5"},
		"late request": {func(ctx context.Context, f *feed) { f.upsert(ctx, at("u", "5")); f.learn(at("u", "4")) }, "5"},
		"newer request": {func(ctx context.Context, f *feed) {
			f.upsert(ctx, at("u", "5"))
			f.learn(at("u", "6"))
			wait.Advance(time.Hour)
		}, "6"},
		"late list": {func(ctx context.Context, f *feed) {
			f.upsert(ctx, at("u", "5"))
			f.replace(ctx, []*nnf.DataMovement{at("u", "4")})
		}, "5"},
		"list after a lost watch": {func(ctx context.Context, f *feed) {
			f.upsert(ctx, at("u", "5"))
			f.replace(ctx, []*nnf.DataMovement{at("u", "9")})
		}, "9"},
		"list without it":                     {func(ctx context.Context, f *feed) { f.upsert(ctx, at("u", "5")); f.replace(ctx, nil) }, ""},
		"list that is older than the request": {func(ctx context.Context, f *feed) { f.learn(at("u", "5")); f.replace(ctx, nil) }, "5"},
		"list long after the request": {func(ctx context.Context, f *feed) {
			f.learn(at("u", "5"))
			wait.Advance(trusted)
			f.replace(ctx, nil)
		}, ""},
		"deleted":                       {func(ctx context.Context, f *feed) { f.upsert(ctx, at("u", "5")); f.remove(ctx, "x") }, ""},
		"found missing":                 {func(ctx context.Context, f *feed) { f.upsert(ctx, at("u", "5")); f.forget("x") }, ""},
		"another object with that name": {func(ctx context.Context, f *feed) { f.upsert(ctx, at("u", "5")); f.upsert(ctx, at("v", "7")) }, "7"},
		"another object with that name, by request": {func(ctx context.Context, f *feed) { f.upsert(ctx, at("u", "5")); f.learn(at("v", "7")) }, "7"},
		"late event of an earlier object with that name": {func(ctx context.Context, f *feed) {
			f.upsert(ctx, at("u", "5"))
			f.learn(at("v", "7"))
			f.upsert(ctx, at("u", "6"))
			wait.Advance(trusted - 1)
		}, "7"},
		"late deletion of an earlier object with that name": {func(ctx context.Context, f *feed) {
			f.upsert(ctx, at("u", "5"))
			f.learn(at("v", "7"))
			f.remove(ctx, "x")
		}, "7"},
		"late event of an earlier object does not confirm the later one": {func(ctx context.Context, f *feed) {
			f.learn(at("v", "7"))
			f.upsert(ctx, at("u", "6"))
			wait.Advance(trusted)
		}, ""},
		"another node's": {func(_ context.Context, f *feed) {
			dm := at("u", "5")
			dm.Labels[api.LabelInitiator] = "compute-02"
			f.learn(dm)
		}, ""},
		"a watch that has ended": {func(_ context.Context, f *feed) {
			over, cancel := context.WithCancel(context.Background())
			cancel()
			f.upsert(over, at("u", "5"))
			f.replace(over, []*nnf.DataMovement{at("u", "5")})
			f.learn(at("u", "4"))
			f.remove(over, "x")
		}, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, _ *cluster, _ *lines) {
				f := s.feed(rabbit)
				defer f.follow()()
				synctest.Wait()
				tt.do(t.Context(), f)
				got := ""
				if dm := f.get("x"); dm != nil {
					got = dm.ResourceVersion
				}
				if got != tt.want {
					t.Errorf("version %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// One watch serves all followers, from the first until some seconds after the last.
func TestFeedLifetime(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		f := s.feed(rabbit)
		watches := func(want int) {
			t.Helper()
			synctest.Wait()
			if n := c.watching(); n != want {
				t.Errorf("%d watches, want %d", n, want)
			}
		}
		watches(0)
		a, b := f.follow(), f.follow()
		watches(1)
		a()
		a() // a second call has no effect
		wait.Advance(time.Hour)
		watches(1)
		b()
		wait.Advance(linger - 1)
		watches(1)
		a = f.follow() // a new follower just before the watch ends
		wait.Advance(linger)
		watches(1)
		a()
		wait.Advance(linger)
		watches(0)
		if want := []string{"watch rabbit-01 dm.cray.hpe.com/initiator=compute-01"}; !slices.Equal(c.requests(), want) {
			t.Error("want one watch with the node's label")
		}
		f.follow()
		watches(1)
		f.stop()
		watches(0)
		f.follow()() // no watch starts after stop
		watches(0)
	})
}

// A watch that cannot start is retried. The log and the status line report the failure
// once, and the recovery once.
func TestFeedLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		s, log := newService(t, c)
		var reported atomic.Value
		s.status.report = func(text string) { reported.Store(text) }
		c.refuse("watch", errors.New("no route"))
		defer s.feed(rabbit).follow()()
		wait.Advance(time.Hour)
		if status := reported.Load().(string); !strings.HasPrefix(status, "the watch on the data movements in") || log.count("event=dm-follow") != 1 || log.count("no route") != 1 {
			t.Errorf("%q, %d records", status, log.count("event=dm-follow"))
		}
		if n := len(c.requests()); n < 100 || n > 1000 {
			t.Errorf("%d attempts in an hour", n)
		}
		// A different error is reported again.
		c.refuse("watch", apiError(403, metav1.StatusReasonForbidden))
		wait.Advance(time.Hour)
		if log.count("event=dm-follow") != 2 {
			t.Errorf("%d records of two different errors", log.count("event=dm-follow"))
		}
		c.requests()
		c.refuse("watch", nil)
		wait.Advance(versionRetry)
		if c.watching() != 1 {
			t.Fatal("no watch")
		}
		s.feed(rabbit).state(t.Context(), kube.State{Connected: true})
		if status := reported.Load(); status != "watching the data movements in rabbit-01" || log.count("works again") != 1 {
			t.Errorf("%q", status)
		}
	})
}

// A watch that continues with a new list (410 Gone) wakes all waiters.
func TestWaitAcrossRelist(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		answer := make(chan *v1.DataMovementStatusResponse)
		go func() {
			a, _ := s.Status(t.Context(), user(1001), job7, uid, -1)
			answer <- a
		}()
		synctest.Wait()
		c.mu.Lock()
		ended := *c.movements[uid]
		ended.ResourceVersion = "1000"
		finished(nnf.MovementSuccess)(&ended)
		c.notify(rabbit, func(h kube.Handler[nnf.DataMovement]) { h.Replace([]*nnf.DataMovement{&ended}) })
		c.mu.Unlock()
		start := time.Now()
		if a := <-answer; a.Status != v1.DataMovementStatusResponse_SUCCESS || time.Since(start) != 0 {
			t.Errorf("%+v after %s", a, time.Since(start))
		}
	})
}

// A wait ends if the object is deleted or can no longer be decoded.
func TestWaitForDeletedObject(t *testing.T) {
	for name, event := range map[string]func(kube.Handler[nnf.DataMovement], string){
		"deleted":   func(h kube.Handler[nnf.DataMovement], uid string) { h.Delete(rabbit, uid) },
		"malformed": func(h kube.Handler[nnf.DataMovement], uid string) { h.Malformed(rabbit, uid, errors.New("bad")) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				uid := created(t, s)
				got := make(chan error)
				go func() {
					_, err := s.Status(t.Context(), user(1001), job7, uid, -1)
					got <- err
				}()
				synctest.Wait()
				c.mu.Lock()
				delete(c.movements, uid)
				c.notify(rabbit, func(h kube.Handler[nnf.DataMovement]) { event(h, uid) })
				c.mu.Unlock()
				if err := <-got; !errors.Is(err, datamovement.ErrNotFound) {
					t.Error(err)
				}
			})
		})
	}
}
