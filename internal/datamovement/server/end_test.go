package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var errConflict = apiError(http.StatusConflict, metav1.StatusReasonConflict)

// Cancel of a movement in each state.
func TestCancel(t *testing.T) {
	for name, tt := range map[string]struct {
		world    func(c *cluster, uid string)
		err      error
		text     string
		requests []string // after the object was read
	}{
		"running": {world: func(c *cluster, uid string) { c.set(uid, running) }, requests: []string{"patch"}},
		"twice": {world: func(c *cluster, uid string) {
			c.set(uid, running)
			c.set(uid, func(dm *nnf.DataMovement) { dm.Spec.Cancel = true })
		}},
		"not begun":          {world: func(*cluster, string) {}, requests: []string{"patch", "delete"}},
		"not begun, again":   {world: func(c *cluster, uid string) { c.set(uid, func(dm *nnf.DataMovement) { dm.Spec.Cancel = true }) }, requests: []string{"delete"}},
		"ended":              {world: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementSuccess)) }},
		"invalid":            {world: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementInvalid)) }},
		"gone":               {world: func(c *cluster, uid string) { delete(c.movements, uid) }, err: datamovement.ErrNotFound, text: "could not find data movement"},
		"gone meanwhile":     {world: func(c *cluster, _ string) { c.refuse("patch", errMissing) }, err: datamovement.ErrNotFound, text: "could not find data movement", requests: []string{"patch"}},
		"replaced meanwhile": {world: func(c *cluster, _ string) { c.refuse("patch", errConflict) }, err: datamovement.ErrFailed, text: "failed to initiate cancel on dm node", requests: []string{"patch"}},
		"server breaks":      {world: func(c *cluster, _ string) { c.refuse("patch", errBroken) }, err: datamovement.ErrUnavailable, text: "the API server does not answer", requests: []string{"patch"}},
		"no right":           {world: func(c *cluster, _ string) { c.refuse("patch", errForbidden) }, err: datamovement.ErrFailed, text: "lacks a right", requests: []string{"patch"}},
		"deleted meanwhile":  {world: func(c *cluster, _ string) { c.refuse("delete", errMissing) }, requests: []string{"patch", "delete"}},
		"cannot be deleted":  {world: func(c *cluster, _ string) { c.refuse("delete", errBroken) }, err: datamovement.ErrUnavailable, text: "the API server does not answer", requests: []string{"patch", "delete"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
				uid := created(t, s)
				tt.world(c, uid)
				c.requests()
				err := s.Cancel(t.Context(), user(1001), job7, uid)
				if tt.err == nil && err != nil || tt.err != nil && (!errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text)) {
					t.Errorf("%v", err)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Error("the caller learns what the server says")
				}
				var got []string
				for _, line := range c.requests()[1:] {
					verb, _, _ := strings.Cut(line, " ")
					got = append(got, verb)
				}
				if !slices.Equal(got, tt.requests) {
					t.Errorf("requests %q, want %q", got, tt.requests)
				}
				// A failed delete leaves no tombstone: the movement is still there.
				if _, buried := s.tombstones.find(uid); buried != (err == nil && slices.Contains(got, "delete")) {
					t.Errorf("buried: %v", buried)
				}
				if n := log.count("event=dm-ended-by-user"); n != 0 && !slices.Contains(got, "patch") || n > 1 {
					t.Errorf("%d records of a cancel", n)
				}
			})
		})
	}
}

// Somebody else's cancel between two looks is not taken for a movement that never
// was.
func TestCancelledMeanwhile(t *testing.T) {
	for name, call := range map[string]func(s *Service, uid string) error{
		"status": func(s *Service, uid string) error {
			a, err := s.Status(context.Background(), user(1001), job7, uid, 0)
			if err == nil && a.Status != v1.DataMovementStatusResponse_CANCELLED {
				err = errors.New("not cancelled")
			}
			return err
		},
		"wait": func(s *Service, uid string) error {
			f := s.feed(rabbit) // not followed: it knows nothing
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
				c.refuse("watch", errBroken) // else it may be known before it is read
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

// Delete of a movement in each state.
func TestDeleteOf(t *testing.T) {
	cancelled := func(dm *nnf.DataMovement) { dm.Spec.Cancel = true }
	for name, tt := range map[string]struct {
		world func(c *cluster, uid string)
		err   error
		gone  bool
	}{
		"success":              {world: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementSuccess)) }, gone: true},
		"invalid":              {world: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementInvalid)) }, gone: true},
		"pending":              {world: func(*cluster, string) {}, err: datamovement.ErrActive},
		"running":              {world: func(c *cluster, uid string) { c.set(uid, running) }, err: datamovement.ErrActive},
		"cancelled, not begun": {world: func(c *cluster, uid string) { c.set(uid, cancelled) }, gone: true},
		"missing":              {world: func(c *cluster, uid string) { delete(c.movements, uid) }, err: datamovement.ErrNotFound, gone: true},
		"deleted meanwhile": {world: func(c *cluster, uid string) {
			c.set(uid, finished(nnf.MovementSuccess))
			c.refuse("delete", errMissing)
		}},
		"server breaks":         {world: func(c *cluster, uid string) { c.set(uid, finished(nnf.MovementSuccess)); c.refuse("delete", errBroken) }, err: datamovement.ErrUnavailable},
		"server breaks at once": {world: func(c *cluster, _ string) { c.refuse("get nnfdatamovements", errBroken) }, err: datamovement.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				uid := created(t, s)
				tt.world(c, uid)
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

// Delete that waits for the end of a cancelled one counts as a waiter, and ends
// with its caller and with the daemon.
func TestDeleteWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		c.set(uid, running)
		if err := s.Cancel(t.Context(), user(1001), job7, uid); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Delete(ctx, user(1001), job7, uid); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		for range 2 {
			go s.Status(t.Context(), user(1001), job7, uid, 5)
		}
		synctest.Wait()
		if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, datamovement.ErrExhausted) {
			t.Errorf("over the limit of waiters: %v", err)
		}
		wait.Advance(time.Minute)
		time.AfterFunc(time.Second, func() { s.EndWaits() })
		begin = time.Now()
		if err := s.Delete(t.Context(), user(1001), job7, uid); !errors.Is(err, datamovement.ErrActive) || time.Since(begin) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

// Names that cannot exist are told so without a request; names that could are
// looked up, and are missing.
func TestNames(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		calls := map[string]func(uid string) error{
			"status": func(uid string) error { _, err := s.Status(t.Context(), user(1001), job7, uid, 0); return err },
			"cancel": func(uid string) error { return s.Cancel(t.Context(), user(1001), job7, uid) },
			"delete": func(uid string) error { return s.Delete(t.Context(), user(1001), job7, uid) },
		}
		for name, call := range calls {
			for _, uid := range []string{"", "X", "a/b", "../x", "a b", "a?limit=1", strings.Repeat("a", 300), "a\n"} {
				if err := call(uid); !errors.Is(err, datamovement.ErrInvalid) || len(err.Error()) > 500 {
					t.Errorf("%s of %q: %v", name, uid, err)
				}
			}
		}
		if got := c.requests(); len(got) != 0 {
			t.Errorf("asked the server: %q", got)
		}
		for name, call := range calls {
			wait.Advance(absentTime)
			for uid, where := range map[string]string{"x": nnf.NamespaceDataMovement, "nnf-dm-x": nnf.NamespaceDataMovement, "nnf-dm-node-x": rabbit, "copy-in": nnf.NamespaceDataMovement} {
				if err := call(uid); !errors.Is(err, datamovement.ErrNotFound) {
					t.Errorf("%s of %q: %v", name, uid, err)
				}
				if got := c.requests(); !slices.Contains(got, "get nnfdatamovements "+where+"/"+uid) {
					t.Errorf("%s of %q: %q", name, uid, got)
				}
			}
		}
	})
}

// List has the caller's own of this node, whatever else has the labels.
func TestList(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		mine, second := created(t, s), created(t, s)
		other := func(name string, change func(*nnf.DataMovement)) {
			c.mu.Lock()
			defer c.mu.Unlock()
			dm := *c.movements[mine]
			dm.Name, dm.UID = name, "uid"
			dm.Labels = make(map[string]string)
			for k, v := range c.movements[mine].Labels {
				dm.Labels[k] = v
			}
			change(&dm)
			c.movements[name] = &dm
		}
		other("of-another-user", func(dm *nnf.DataMovement) { dm.Spec.UserID = 1002 })
		other("of-another-node", func(dm *nnf.DataMovement) { dm.Labels[api.LabelInitiator] = "compute-02" })
		other("of-the-controller", func(dm *nnf.DataMovement) { dm.Labels[api.LabelInitiator] = "copy_in" })
		other("of-nobody", func(dm *nnf.DataMovement) { delete(dm.Labels, api.LabelOwnerKind) })
		other("of-another-workflow", func(dm *nnf.DataMovement) { dm.Labels[api.LabelOwnerName] = "job8" })
		list := func(c datamovement.Caller, want ...string) {
			t.Helper()
			got, err := s.List(t.Context(), c, job7)
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		}
		list(user(1001), mine, second)
		list(user(1002), "of-another-user")
		list(user(1003))
		list(user(0), mine, second, "of-another-user")
		now := *s.settings.Load()
		now.Policy.ListWorkflow = true
		s.SetSettings(now)
		list(user(1001), mine, second, "of-another-node")
		c.refuse("list movements", errBroken)
		if _, err := s.List(t.Context(), user(1001), job7); !errors.Is(err, datamovement.ErrUnavailable) {
			t.Error(err)
		}
		if _, err := s.List(t.Context(), user(1001), datamovement.WorkflowRef{}); !errors.Is(err, datamovement.ErrInvalid) {
			t.Error(err)
		}
	})
}

// A restart forgets nothing but what was cancelled before its begin.
func TestAnotherDaemon(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		runs, cancelled := created(t, s), created(t, s)
		c.set(runs, running)
		if err := s.Cancel(t.Context(), user(1001), job7, cancelled); err != nil {
			t.Fatal(err)
		}
		next, _ := newService(t, c)
		wantState(t, next, runs, 0, v1.DataMovementStatusResponse_RUNNING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		if uids, err := next.List(t.Context(), user(1001), job7); err != nil || !slices.Equal(uids, []string{runs}) {
			t.Errorf("%q, %v", uids, err)
		}
		if _, err := next.Status(t.Context(), user(1001), job7, cancelled, -1); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("what was cancelled: %v", err)
		}
	})
}

// What callers send into the log is bounded.
func TestAuditIsBounded(t *testing.T) {
	log := new(lines)
	s := New(Options{Node: node, Client: newCluster(), Settings: settings(t), Log: slog.New(slog.NewTextHandler(log, nil))})
	defer s.Close()
	s.record(user(1001), strings.Repeat("x", 1<<20), strings.Repeat("y", 1<<20))
	if n := log.b.Len(); n > 2000 || log.count("event=dm-refused") != 1 {
		t.Errorf("a record of %d bytes", n)
	}
}
