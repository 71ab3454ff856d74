package server

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// exists adds movements of a user that this daemon has not created.
func (c *cluster) exists(uid int64, n, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range n {
		dm := started("old-"+strconv.FormatInt(uid, 10)+"-"+strconv.Itoa(i), uid)
		dm.UID = types.UID("uid-old-" + strconv.Itoa(i))
		dm.Spec.Source.Path = strings.Repeat("x", bytes)
		c.put(dm)
	}
}

func countLists(requests []string) (n int) {
	for _, r := range requests {
		if r == "list "+rabbit+" movements" { // and of the namespace of Lustre
			n++
		}
	}
	return n
}

// A user cannot exceed the limit of movements until some are deleted, by any program.
// Other users and root are not affected.
func TestQuotaMovements(t *testing.T) {
	for setting, limit := range map[string]func(*Limits){
		"limits.movements_per_user":      func(l *Limits) { l.Movements = 5 },
		"limits.movement_bytes_per_user": func(l *Limits) { l.MovementBytes = 5 * 8192 },
	} {
		t.Run(setting, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
				now := *s.settings.Load()
				limit(&now.Limits)
				s.SetSettings(now)
				r := usualRequest
				r.Destination += strings.Repeat("d/", 3400/2) // about 8 KiB is less than two of it
				if setting == "limits.movement_bytes_per_user" {
					c.exists(1001, 3, 8192-1024)
				} else {
					c.exists(1001, 3, 0)
				}
				c.exists(1002, 50, 0)
				var mine []string
				var err error
				for range 10 {
					var uid string
					if uid, err = s.Create(t.Context(), user(1001), r); err != nil {
						break
					}
					mine = append(mine, uid)
				}
				f := datamovement.Explain(err)
				if len(mine) < 2 || len(mine) > 4 || f == nil || !errors.Is(f.Kind, datamovement.ErrExhausted) || f.Field != setting || !strings.Contains(f.Error(), "delete those that have ended") {
					t.Fatalf("%d were created, then %v", len(mine), err)
				}
				if log.count("event=dm-refused") != 1 {
					t.Error("no record")
				}
				if _, err := s.Create(t.Context(), user(0), r); err != nil {
					t.Errorf("root: %v", err)
				}
				c.requests()
				for range 5 {
					if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrExhausted) {
						t.Errorf("above the limit: %v", err)
					}
				}
				if n := countLists(c.requests()); n != 0 {
					t.Errorf("5 concurrent refusals cause %d lists", n)
				}
				// The user deletes some.
				c.set(mine[0], finished(nnf.MovementSuccess))
				c.set(mine[1], finished(nnf.MovementSuccess))
				for _, uid := range mine[:2] {
					if err := s.Delete(t.Context(), user(1001), job7, uid); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := s.Create(t.Context(), user(1001), r); err != nil {
					t.Errorf("after a delete: %v", err)
				}
				// The workflow ends.
				c.mu.Lock()
				clear(c.movements)
				c.mu.Unlock()
				wait.Advance(recountAfter)
				for range 2 {
					if _, err := s.Create(t.Context(), user(1001), r); err != nil {
						t.Errorf("after the workflow has deleted all: %v", err)
					}
				}
			})
		})
	}
}

// Movements that may have been created count, even if no caller got a response. So do
// those that are created during a count.
func TestQuotaCountIsNotTooLow(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		now := *s.settings.Load()
		now.Limits.Movements = 3
		s.SetSettings(now)
		created(t, s)
		wait.Advance(time.Millisecond)
		c.refuse("create", errBroken)
		for range 2 {
			if _, err := s.Create(t.Context(), user(1001), usualRequest); !errors.Is(err, datamovement.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		c.refuse("create", errInvalid) // certainly not created
		if _, err := s.Create(t.Context(), user(1001), usualRequest); !errors.Is(err, datamovement.ErrExhausted) {
			t.Errorf("two may have been created: %v", err)
		}
		wait.Advance(recountAfter)
		if _, err := s.Create(t.Context(), user(1001), usualRequest); !errors.Is(err, datamovement.ErrFailed) {
			t.Errorf("counted again: %v", err)
		}
		c.refuse("create", nil)
		created(t, s)
		created(t, s)
		if n := len(s.quota.users[1001].items); n != 3 {
			t.Errorf("%d of 3 are counted", n)
		}
	})
}

// Waits end even if the watch is lost or has never delivered anything, and they cause few
// reads, however many waits there are.
func TestWaitsWithStaleWatch(t *testing.T) {
	for name, lose := range map[string]func(*Service, *cluster){
		"from the start": func(*Service, *cluster) {},
		"later": func(s *Service, c *cluster) {
			c.refuse("watch", nil)
			defer s.feed(rabbit).follow()()
			synctest.Wait()
			c.refuse("watch", errBroken)
			c.endWatches()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				now := *s.settings.Load()
				now.Limits.Waiters = 1000
				s.SetSettings(now)
				uid := created(t, s)
				c.refuse("watch", errBroken)
				lose(s, c)
				const flood = 500
				c.exists(1002, flood, 0)
				for i := range flood {
					go s.await(t.Context(), user(1002), job7, s.feed(rabbit), "old-1002-"+strconv.Itoa(i), time.Hour)
				}
				done := make(chan *v1.DataMovementStatusResponse)
				go func() {
					a, _ := s.Status(t.Context(), user(1001), job7, uid, -1)
					done <- a
				}()
				wait.Advance(time.Minute)
				c.mu.Lock()
				ended := *c.movements[uid]
				finished(nnf.MovementSuccess)(&ended)
				c.put(&ended)
				c.mu.Unlock()
				c.requests()
				start := time.Now()
				if a := <-done; a.Status != v1.DataMovementStatusResponse_SUCCESS {
					t.Errorf("%+v", a)
				}
				if took := time.Since(start); took > 2*staleAfter {
					t.Errorf("the wait took %s", took)
				}
				c.requests()
				wait.Advance(10 * time.Second)
				if n := len(slices.DeleteFunc(c.requests(), func(r string) bool { return !strings.HasPrefix(r, "get ") })); n > 110 || n < 50 {
					t.Errorf("%d reads in 10 s", n)
				}
				s.EndWaits()
			})
		})
	}
}

// A wait ends if its movement is deleted while the watch is lost.
func TestDeletionWithStaleWatch(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		c.refuse("watch", errBroken)
		done := make(chan error)
		go func() {
			_, err := s.Status(t.Context(), user(1001), job7, uid, -1)
			done <- err
		}()
		wait.Advance(time.Minute)
		c.drop(uid)
		start := time.Now()
		if err := <-done; !errors.Is(err, datamovement.ErrNotFound) || time.Since(start) > 2*staleAfter {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// While the watch is lost, a poll returns the latest state, or the last known one if the
// API server does not respond.
func TestPollsWithStaleWatch(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		defer s.feed(rabbit).follow()()
		synctest.Wait()
		c.refuse("watch", errBroken)
		c.endWatches()
		wait.Advance(time.Minute)
		c.set(uid, running)
		wantState(t, s, uid, 0, isRunning, unknownStatus)
		c.refuse("", errBroken)
		wait.Advance(time.Minute)
		c.requests()
		for range 10 {
			wantState(t, s, uid, 0, isRunning, unknownStatus)
		}
		if n := len(slices.DeleteFunc(c.requests(), func(r string) bool { return !strings.HasPrefix(r, "get ") })); n > 2 {
			t.Errorf("10 concurrent polls cause %d reads", n)
		}
	})
}

// A repeated name is looked up once.
func TestNamesAreLookedUpOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		handle, uids := batched(t, s, "", "a", "b")
		c.requests()
		g, err := s.group(t.Context(), user(1001), job7, []string{handle, handle, uids[0], handle, uids[0]})
		if err != nil {
			t.Fatal(err)
		}
		defer g.release()
		synctest.Wait()
		if n := countLists(c.requests()); n != 1 || len(g.members) != 2 {
			t.Errorf("%d lists for one handle, %d movements", n, len(g.members))
		}
	})
}
