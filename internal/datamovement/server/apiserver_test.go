package server

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// gone is a client of a server that does not serve one of the versions.
type gone struct {
	*cluster
	lost string // version
}

func (g *gone) Served(ctx context.Context, r kube.Resource, known []string) (string, error) {
	_, err := g.cluster.Served(ctx, r, known)
	if g.lost == known[0] {
		return known[1], err
	}
	return known[0], err
}

func (g *gone) Get(ctx context.Context, r kube.Resource, ns, name string, into any) error {
	if r.Version == g.lost {
		return kube.ErrVersionGone
	}
	return g.cluster.Get(ctx, r, ns, name, into)
}

func (g *gone) GetCached(ctx context.Context, r kube.Resource, ns, name string, into any) error {
	return g.Get(ctx, r, ns, name, into)
}

// A version that is no longer served is replaced by another one.
func TestVersionNoLongerServed(t *testing.T) {
	g := &gone{cluster: newCluster()}
	r := newAPIServer(g)
	var wf dws.Workflow
	for range 2 {
		if err := r.get(t.Context(), kindWorkflow, "default", "job7", &wf); err != nil {
			t.Fatal(err)
		}
	}
	g.lost = knownVersions[kindWorkflow.group][0]
	if err := r.get(t.Context(), kindWorkflow, "default", "job7", &wf); err != nil {
		t.Fatal(err)
	}
	want := []string{"get workflows default/job7", "get workflows default/job7", "discover workflows", "get workflows default/job7"}
	if got := g.requests(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// If the new version is not served either, this is an error, not a loop.
	g.lost = ""
	always := &never{g.cluster}
	if err := newAPIServer(always).get(t.Context(), kindWorkflow, "default", "job7", &wf); !errors.Is(err, kube.ErrVersionGone) {
		t.Error(err)
	}
}

type never struct{ *cluster }

func (never) Get(context.Context, kube.Resource, string, string, any) error {
	return kube.ErrVersionGone
}

func TestSelectorOf(t *testing.T) {
	for want, labels := range map[string]map[string]string{"": nil, "a=1": {"a": "1"}, "a=1,b=2,c=3": {"c": "3", "a": "1", "b": "2"}} {
		if got := selectorOf(labels); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// limited is an API server behind the client's rate limit: requests pass one after
// another, in the order of arrival.
type limited struct {
	*cluster
	queue chan struct{}
}

func (l *limited) Get(ctx context.Context, r kube.Resource, ns, name string, into any) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	return l.cluster.Get(ctx, r, ns, name, into)
}

func (l *limited) GetCached(ctx context.Context, r kube.Resource, ns, name string, into any) error {
	return l.Get(ctx, r, ns, name, into)
}

func (l *limited) List(ctx context.Context, r kube.Resource, ns, selector string, fromCache bool, into any) error {
	if r.Plural == kindClientMount.plural {
		if err := l.pass(ctx); err != nil {
			return err
		}
	}
	return l.cluster.List(ctx, r, ns, selector, fromCache, into)
}

const each = 20 * time.Millisecond // 50 per second

func (l *limited) pass(ctx context.Context) error {
	select {
	case l.queue <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	kube.Pause(context.Background(), each)
	<-l.queue
	return nil
}

func as(ctx context.Context, uid uint32) (context.Context, datamovement.Caller) {
	c := user(uid)
	return context.WithValue(ctx, callerKey{}, c), c
}

// A user who sends thousands of requests delays another user only by the few requests in
// progress.
func TestQueuesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newService(t, newCluster())
		s.api.client = &limited{newCluster(), make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const flood = 2000
		done := make(chan error, flood)
		for range flood {
			go func() {
				ctx, c := as(ctx, 1002)
				_, err := s.Status(ctx, c, datamovement.WorkflowRef{}, "nnf-dm-guess", 0)
				done <- err
			}()
		}
		wait.Advance(time.Second)
		start := time.Now()
		mine, c := as(t.Context(), 1001)
		if _, err := s.Create(mine, c, usualRequest); err != nil {
			t.Error(err)
		}
		// Six requests are rate-limited, and each waits for eight others.
		if d := time.Since(start); d > 6*(requestsPerUser+1)*each {
			t.Errorf("it took %s during the requests of another user", d)
		}
		cancel()
		sentRequests := 0
		for range flood {
			if err := <-done; errors.Is(err, datamovement.ErrNotFound) {
				sentRequests++
			}
		}
		if sentRequests < 10 {
			t.Errorf("only %d requests of the flood were sent", sentRequests)
		}
		if n := len(s.api.queue.users); n != 0 {
			t.Errorf("%d users are remembered", n)
		}
	})
}

// A request whose result all users share does not wait for the turn of the first user:
// the other users would wait, too.
func TestSharedLookupsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newService(t, newCluster())
		stuck := make(chan struct{})
		ctx, _ := as(t.Context(), 1002)
		for range requestsPerUser {
			go s.api.queue.run(ctx, func() error { <-stuck; return nil })
		}
		synctest.Wait()
		go s.look.rabbit(ctx)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		mine, _ := as(ctx, 1001)
		if _, err := s.look.rabbit(mine); err != nil {
			t.Error(err)
		}
		close(stuck)
	})
}

func TestTurnEndsWithCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := new(fairQueue)
		stuck := make(chan struct{})
		ctx, _ := as(t.Context(), 1001)
		for range requestsPerUser {
			go q.run(ctx, func() error { <-stuck; return nil })
		}
		synctest.Wait()
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := q.run(short, func() error { t.Error("it ran"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		other, _ := as(t.Context(), 1002)
		ran := false
		if err := q.run(other, func() error { ran = true; return nil }); err != nil || !ran {
			t.Errorf("another user: %v", err)
		}
		if err := q.run(t.Context(), func() error { return errMissing }); err != errMissing {
			t.Errorf("the daemon itself: %v", err)
		}
		close(stuck)
	})
}

// flood starts n requests of a user that take no time, and returns the number of
// requests that were sent.
func flood(t *testing.T, q *fairQueue, uid uint32, n int) (gone *atomic.Int64) {
	gone = new(atomic.Int64)
	ctx, _ := as(t.Context(), uid)
	for range n {
		go func() { _ = q.run(ctx, func() error { gone.Add(1); return nil }) }()
	}
	synctest.Wait()
	return gone
}

// One user has a limited share; the rest is available to other users without delay.
func TestAPIShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := new(fairQueue)
		q.set(APIShare{QPS: 50, Burst: 100, Percent: 80})
		gone := flood(t, q, 1002, 500)
		if n := gone.Load(); n != 80 {
			t.Errorf("a burst of %d, want 80", n)
		}
		wait.Advance(2 * time.Second)
		if n := gone.Load(); n < 159 || n > 160 {
			t.Errorf("%d after 2 s, want 160", n)
		}
		for range 20 {
			start := time.Now()
			other, _ := as(t.Context(), 1001)
			if err := q.run(other, func() error { return nil }); err != nil || time.Since(start) != 0 {
				t.Errorf("another user waited %v: %v", time.Since(start), err)
			}
		}
		q.set(APIShare{}) // no limit
		synctest.Wait()
		if n := gone.Load(); n != 500 {
			t.Errorf("%d without a limit", n)
		}
		wait.Advance(time.Second)
		if q.sweep(); len(q.users) != 0 {
			t.Errorf("%d users are remembered", len(q.users))
		}
	})
}

// Users take turns: a user waits for at most one request of each other user.
func TestUsersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := new(fairQueue)
		q.set(APIShare{QPS: 50, Burst: 10, Percent: 80})
		const users = 25
		ctx, cancel := context.WithCancel(t.Context())
		for uid := range uint32(users) {
			for range 100 {
				other, _ := as(ctx, 2000+uid)
				go func() { _ = q.run(other, func() error { return nil }) }()
			}
		}
		wait.Advance(3 * time.Second)
		start := time.Now()
		mine, _ := as(t.Context(), 1001)
		if err := q.run(mine, func() error { return nil }); err != nil {
			t.Error(err)
		}
		if d, most := time.Since(start), (users+1)*time.Second/50; d > most {
			t.Errorf("it took %v with %d other users, want at most %v", d, users, most)
		}
		cancel()
		synctest.Wait()
		if n := q.ready.Len(); n != 0 {
			t.Errorf("%d users wait", n)
		}
		wait.Advance(time.Minute)
		if q.sweep(); len(q.users) != 0 {
			t.Errorf("%d users are remembered", len(q.users))
		}
	})
}

// Requests of the daemon count towards the overall limit and wait for no user.
func TestDaemonRequestsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := new(fairQueue)
		q.set(APIShare{QPS: 10, Burst: 10, Percent: 100})
		for range 20 {
			if err := q.run(t.Context(), func() error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		mine, _ := as(t.Context(), 1001)
		if err := q.run(mine, func() error { return nil }); err != nil || time.Since(start) < time.Second {
			t.Errorf("a user waited %v: %v", time.Since(start), err)
		}
	})
}
