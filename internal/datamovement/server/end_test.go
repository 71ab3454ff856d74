package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func TestCancelBeforeStart(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		waited := make(chan *v1.DataMovementStatusResponse)
		go func() {
			a, _ := s.Status(t.Context(), user(1001), job7, uid, -1)
			waited <- a
		}()
		synctest.Wait()
		if err := s.Cancel(t.Context(), user(1001), job7, uid); err != nil {
			t.Fatal(err)
		}
		if a := <-waited; a.Status != v1.DataMovementStatusResponse_CANCELLED {
			t.Errorf("the waiter got %+v", a)
		}
		if c.movements[uid] != nil {
			t.Error("the movement still exists, and the rabbit will never end it")
		}
		wantState(t, s, uid, 0, completed, cancelled)
		if _, err := s.Status(t.Context(), user(1002), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("another user: %v", err)
		}
		if err := s.Cancel(t.Context(), user(1001), job7, uid); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := s.Delete(t.Context(), user(1001), job7, uid); err != nil {
			t.Error(err)
		}
		if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
	})
}

func TestDelete(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		c.set(uid, running)
		if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, datamovement.ErrActive) {
			t.Fatalf("active: %v", err)
		}
		if err := s.Cancel(t.Context(), user(1001), job7, uid); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, uid, 0, cancelling, unknownStatus)
		start := time.Now()
		if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, datamovement.ErrActive) || time.Since(start) != deleteWait {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		time.AfterFunc(2*time.Second, func() { c.set(uid, finished(nnf.MovementCancelled)) })
		if err := s.Delete(t.Context(), user(1001), job7, uid); err != nil || c.movements[uid] != nil {
			t.Errorf("cancel, then delete: %v", err)
		}
	})
}

var errConflict = apiError(http.StatusConflict, metav1.StatusReasonConflict)

// Cancel of a movement in each state.
func TestCancel(t *testing.T) {
	for name, tt := range map[string]struct {
		setUp    func(c *cluster, uid string)
		err      error
		text     string
		requests []string // after the object was read
	}{
		"running": {setUp: func(c *cluster, uid string) { c.set(uid, running) }, requests: []string{"patch"}},
		"twice": {setUp: func(c *cluster, uid string) {
			c.set(uid, running)
			c.set(uid, func(dm *nnf.DataMovement) { dm.Spec.Cancel = true })
		}},
		"not started":               {setUp: func(*cluster, string) {}, requests: []string{"patch", "delete"}},
		"not started, again":        {setUp: func(c *cluster, uid string) { c.set(uid, func(dm *nnf.DataMovement) { dm.Spec.Cancel = true }) }, requests: []string{"delete"}},
		"ended":                     {setUp: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementSuccess)) }},
		"invalid":                   {setUp: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementInvalid)) }},
		"gone":                      {setUp: func(c *cluster, uid string) { delete(c.movements, uid) }, err: datamovement.ErrNotFound, text: "could not find data movement"},
		"deleted before the patch":  {setUp: func(c *cluster, _ string) { c.refuse("patch", errMissing) }, err: datamovement.ErrNotFound, text: "could not find data movement", requests: []string{"patch"}},
		"replaced before the patch": {setUp: func(c *cluster, _ string) { c.refuse("patch", errConflict) }, err: datamovement.ErrFailed, text: "failed to initiate cancel on dm node", requests: []string{"patch"}},
		"server error":              {setUp: func(c *cluster, _ string) { c.refuse("patch", errBroken) }, err: datamovement.ErrUnavailable, text: "a request to the API server failed", requests: []string{"patch"}},
		"no permission":             {setUp: func(c *cluster, _ string) { c.refuse("patch", errForbidden) }, err: datamovement.ErrFailed, text: "the API server denied a request", requests: []string{"patch"}},
		"deleted before the delete": {setUp: func(c *cluster, _ string) { c.refuse("delete", errMissing) }, requests: []string{"patch", "delete"}},
		"cannot be deleted":         {setUp: func(c *cluster, _ string) { c.refuse("delete", errBroken) }, err: datamovement.ErrUnavailable, text: "a request to the API server failed", requests: []string{"patch", "delete"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
				uid := created(t, s)
				tt.setUp(c, uid)
				c.requests()
				err := s.Cancel(t.Context(), user(1001), job7, uid)
				if tt.err == nil && err != nil || tt.err != nil && (!errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text)) {
					t.Errorf("%v", err)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Error("the error contains the server's text")
				}
				var got []string
				for _, line := range c.requests()[1:] {
					verb, _, _ := strings.Cut(line, " ")
					got = append(got, verb)
				}
				if !slices.Equal(got, tt.requests) {
					t.Errorf("requests %q, want %q", got, tt.requests)
				}
				// A failed delete leaves no tombstone: the movement still exists.
				if _, cancelled := s.tombstones.find(uid); cancelled != (err == nil && slices.Contains(got, "delete")) {
					t.Errorf("cancelled: %v", cancelled)
				}
				if n := log.count("event=dm-ended-by-user"); n != 0 && !slices.Contains(got, "patch") || n > 1 {
					t.Errorf("%d records of a cancel", n)
				}
			})
		})
	}
}

// A cancel by another process between two reads is not reported as a missing movement.
func TestConcurrentCancel(t *testing.T) {
	for name, call := range map[string]func(s *Service, uid string) error{
		"status": func(s *Service, uid string) error {
			a, err := s.Status(context.Background(), user(1001), job7, uid, 0)
			if err == nil && a.Status != v1.DataMovementStatusResponse_CANCELLED {
				err = errors.New("not cancelled")
			}
			return err
		},
		"wait": func(s *Service, uid string) error {
			f := s.feed(rabbit) // not followed, so it caches nothing
			dm, g, err := s.await(context.Background(), user(1001), job7, f, uid, time.Second)
			if err == nil && (dm != nil || g.dm == nil) {
				err = errors.New("no tombstone")
			}
			return err
		},
		"cancel": func(s *Service, uid string) error { return s.Cancel(context.Background(), user(1001), job7, uid) },
		"delete": func(s *Service, uid string) error { return s.Delete(context.Background(), user(1001), job7, uid) },
		"group": func(s *Service, uid string) error {
			g, err := s.group(context.Background(), user(1001), job7, []string{uid})
			if err != nil {
				return err
			}
			defer g.release()
			n, err := g.snapshot(context.Background(), g.members[0], false)
			if err == nil && n.tombstone == nil {
				err = errors.New("no tombstone")
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				uid := created(t, s)
				c.refuse("watch", errBroken) // otherwise the watch may deliver it before it is read
				c.reading = func(dm *nnf.DataMovement) {
					s.tombstones.add(dm)
					delete(c.movements, dm.Name)
				}
				if err := call(s, uid); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// add records that dm was cancelled and deleted.
func (g *tombstones) add(dm *nnf.DataMovement) {
	g.prepare(dm)
	g.confirm(dm)
}

// Delete of a movement in each state.
func TestDeleteOf(t *testing.T) {
	cancelled := func(dm *nnf.DataMovement) { dm.Spec.Cancel = true }
	for name, tt := range map[string]struct {
		setUp func(c *cluster, uid string)
		err   error
		gone  bool
	}{
		"success":                {setUp: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementSuccess)) }, gone: true},
		"invalid":                {setUp: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementInvalid)) }, gone: true},
		"pending":                {setUp: func(*cluster, string) {}, err: datamovement.ErrActive},
		"running":                {setUp: func(c *cluster, uid string) { c.set(uid, running) }, err: datamovement.ErrActive},
		"cancelled, not started": {setUp: func(c *cluster, uid string) { c.set(uid, cancelled) }, gone: true},
		"missing":                {setUp: func(c *cluster, uid string) { delete(c.movements, uid) }, err: datamovement.ErrNotFound, gone: true},
		"deleted meanwhile": {setUp: func(c *cluster, uid string) {
			c.set(uid, finished(nnf.MovementSuccess))
			c.refuse("delete", errMissing)
		}},
		"server error":             {setUp: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementSuccess)); c.refuse("delete", errBroken) }, err: datamovement.ErrUnavailable},
		"server error at the read": {setUp: func(c *cluster, _ string) { c.refuse("get nnfdatamovements", errBroken) }, err: datamovement.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				uid := created(t, s)
				tt.setUp(c, uid)
				if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, tt.err) || tt.err == nil && err != nil {
					t.Errorf("%v, want %v", err, tt.err)
				}
				if gone := c.movements[uid] == nil; gone != tt.gone {
					t.Errorf("gone: %v", gone)
				}
			})
		})
	}
}

// A Delete that waits for the end of a cancelled movement counts as a waiter, and ends
// with its caller and at a shutdown.
func TestDeleteWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		c.set(uid, running)
		if err := s.Cancel(t.Context(), user(1001), job7, uid); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Delete(ctx, user(1001), job7, uid); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		for range 2 {
			go s.Status(t.Context(), user(1001), job7, uid, 5)
		}
		synctest.Wait()
		if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, datamovement.ErrExhausted) {
			t.Errorf("above the limit of waiters: %v", err)
		}
		wait.Advance(time.Minute)
		time.AfterFunc(time.Second, func() { s.EndWaits() })
		start = time.Now()
		if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, datamovement.ErrActive) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// After a restart, only movements that were cancelled before their start are unknown.
func TestAfterRestart(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		runs, cancelled := created(t, s), created(t, s)
		c.set(runs, running)
		if err := s.Cancel(t.Context(), user(1001), job7, cancelled); err != nil {
			t.Fatal(err)
		}
		next, _ := newService(t, c)
		wantState(t, next, runs, 0, isRunning, unknownStatus)
		if uids, err := next.List(t.Context(), user(1001), job7); err != nil || !slices.Equal(uids, []string{runs}) {
			t.Errorf("%q, %v", uids, err)
		}
		if _, err := next.Status(t.Context(), user(1001), job7, cancelled, -1); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("cancelled movement: %v", err)
		}
	})
}

// While a cancelled movement is being deleted, no call reports that it has ended or is deleted: the
// deletion can fail.
func TestCancelWhileDeleting(t *testing.T) {
	for name, err := range map[string]error{"deleted": nil, "the deletion fails": errBroken} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				uid := created(t, s)
				c.refuse("delete", err)
				calls := 0
				c.deleting = func() {
					if calls++; calls > 1 {
						return // the Delete below
					}
					wantState(t, s, uid, 0, cancelling, unknownStatus)
					if got := s.Delete(t.Context(), user(1001), job7, uid); (got == nil) != (err == nil) {
						t.Errorf("a concurrent Delete: %v, and the deletion: %v", got, err)
					}
				}
				if got := s.Cancel(t.Context(), user(1001), job7, uid); (got == nil) != (err == nil) {
					t.Errorf("Cancel: %v", got)
				}
				if calls != 2 {
					t.Errorf("%d deletions", calls)
				}
				if err != nil {
					wantState(t, s, uid, 0, cancelling, unknownStatus)
				} else if _, err := s.Status(t.Context(), user(1001), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
					t.Errorf("after the Delete: %v", err)
				}
			})
		})
	}
}

// A cancellation that was interrupted between its two requests is completed by the next call of its
// owner: the rabbit would never end the movement.
func TestInterruptedCancel(t *testing.T) {
	for name, seconds := range map[string]int64{"status": 0, "wait": -1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				uid := created(t, s)
				c.set(uid, func(dm *nnf.DataMovement) { dm.Spec.Cancel = true })
				c.refuse("delete", errBroken)
				wantState(t, s, uid, 0, cancelling, unknownStatus)
				c.refuse("delete", nil)
				if _, err := s.Status(t.Context(), user(1002), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) || c.movements[uid] == nil {
					t.Errorf("another user: %v", err)
				}
				wantState(t, s, uid, seconds, completed, cancelled)
				if c.movements[uid] != nil {
					t.Error("the movement still exists")
				}
			})
		})
	}
	// Version 2.
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		c.set(uid, func(dm *nnf.DataMovement) { dm.Spec.Cancel = true })
		g, err := s.group(t.Context(), user(1001), job7, []string{uid})
		if err != nil {
			t.Fatal(err)
		}
		defer g.release()
		if n, err := g.snapshot(t.Context(), g.members[0], false); err != nil || n.tombstone == nil || c.movements[uid] != nil {
			t.Errorf("version 2: %+v, %v", n, err)
		}
	})
	// A wait that started earlier.
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		time.AfterFunc(time.Second, func() { c.set(uid, func(dm *nnf.DataMovement) { dm.Spec.Cancel = true }) })
		wantState(t, s, uid, -1, completed, cancelled)
	})
}

func named(name string, labels map[string]string) *nnf.DataMovement {
	return &nnf.DataMovement{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid of " + name), Labels: labels}}
}

func of(uid int64, dm *nnf.DataMovement) *nnf.DataMovement {
	dm.Spec.UserID = uid
	return dm
}

func (g *tombstones) size() (n int) {
	for _, own := range g.users {
		n += len(own)
	}
	return max(n, len(g.names))
}

// A tombstone is found for an hour, by its name and by its labels.
func TestTombstonesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g tombstones
		if _, ok := g.find("a"); ok {
			t.Error("found without a tombstone")
		}
		g.drop("a")
		g.add(named("a", map[string]string{"x": "1"}))
		start := time.Now()
		wait.Advance(tombstoneTime)
		if found, ok := g.find("a"); !ok || found.dm.Name != "a" || !found.at.Equal(start) {
			t.Errorf("after an hour: %+v %v", found, ok)
		}
		if n := len(g.matching(map[string]string{"x": "1"})); n != 1 {
			t.Errorf("%d by the label", n)
		}
		wait.Advance(time.Nanosecond)
		if n := len(g.matching(map[string]string{"x": "1"})); n != 0 {
			t.Errorf("%d by the label, later", n)
		}
		if _, ok := g.find("a"); ok || g.size() != 0 {
			t.Errorf("found later, %d are kept", g.size())
		}
	})
}

// The number of tombstones of a user is limited, the oldest are removed first, and those
// of other users remain.
func TestTombstonesAreBoundedPerUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g tombstones
		g.add(of(1002, named("of another", nil)))
		for i := range 5 * tombstonesPerUser {
			g.add(of(1001, named(fmt.Sprint(i), nil)))
			wait.Advance(time.Millisecond)
		}
		if g.size() != tombstonesPerUser+1 {
			t.Errorf("%d are kept", g.size())
		}
		for name, want := range map[string]bool{
			"0": false, fmt.Sprint(4*tombstonesPerUser - 1): false, fmt.Sprint(4 * tombstonesPerUser): true,
			fmt.Sprint(5*tombstonesPerUser - 1): true, "of another": true,
		} {
			if _, ok := g.find(name); ok != want {
				t.Errorf("%s: %v", name, ok)
			}
		}
		wait.Advance(tombstoneTime + time.Minute)
		g.add(of(1003, named("last", nil)))
		if g.size() != 1 {
			t.Errorf("%d are kept after their time", g.size())
		}
	})
}

// A tombstone belongs to one object: events of an earlier object with the same name do
// not affect it.
func TestTombstonesOfOneName(t *testing.T) {
	var g tombstones
	first, second := named("a", nil), named("a", nil)
	second.UID = "second"
	g.add(first)
	g.add(second)
	g.dropObject(first)
	if found, ok := g.find("a"); !ok || found.dm.UID != "second" || g.size() != 1 {
		t.Errorf("%+v %v, %d are kept", found.dm, ok, g.size())
	}
	g.drop("a")
	if _, ok := g.find("a"); ok || g.size() != 0 {
		t.Errorf("found after it was dropped, %d are kept", g.size())
	}
}

func TestTombstonesMatching(t *testing.T) {
	var g tombstones
	g.add(named("a", map[string]string{"x": "1", "y": "1"}))
	g.add(named("b", map[string]string{"x": "1", "y": "2"}))
	g.add(named("c", nil))
	for _, tt := range []struct {
		labels map[string]string
		want   []string
	}{
		{nil, []string{"a", "b", "c"}},
		{map[string]string{"x": "1"}, []string{"a", "b"}},
		{map[string]string{"x": "1", "y": "2"}, []string{"b"}},
		{map[string]string{"x": "2"}, nil},
		{map[string]string{"z": "1"}, nil},
	} {
		var got []string
		for _, dm := range g.matching(tt.labels) {
			got = append(got, dm.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.labels, got, tt.want)
		}
	}
}
