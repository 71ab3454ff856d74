package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// bubble runs f with a service in a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T, s *Service, c *cluster, log *lines)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		s, log := newService(t, c)
		f(t, s, c, log)
	})
}

func created(t *testing.T, s *Service) string {
	t.Helper()
	uid, err := s.Create(t.Context(), user(1001), wish)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func wantState(t *testing.T, s *Service, uid string, wait int64, state v1.DataMovementStatusResponse_State, result v1.DataMovementStatusResponse_Status) {
	t.Helper()
	a, err := s.Status(t.Context(), user(1001), job7, uid, wait)
	if err != nil || a.State != state || a.Status != result {
		t.Errorf("Status: state %d, result %d, %v; want %d, %d", a.State, a.Status, err, state, result)
	}
}

func TestCreateRequests(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		if cold := c.requests(); len(cold) > 13 {
			t.Errorf("cold: %q", cold)
		}
		dm := c.movements[uid]
		if dm.Namespace != rabbit || dm.Spec.Source.Path != mount0+"/rabbit-01-3/out/" || dm.Spec.UserID != 1001 || dm.Spec.ProfileReference.Name != "default" {
			t.Errorf("object %+v", dm)
		}
		// What was read for the first one is good for those that follow within a second.
		for range 3 {
			created(t, s)
		}
		want := []string{"create nnfdatamovements rabbit-01", "create nnfdatamovements rabbit-01", "create nnfdatamovements rabbit-01"}
		if got := c.requests(); !slices.Equal(got, want) {
			t.Errorf("at once: %q\nwant: %q", got, want)
		}
		wait.Advance(jobWindow + time.Millisecond)
		created(t, s)
		want = []string{"get workflows default/job7", "get clientmounts compute-01/cm-0", "get clientmounts rabbit-01/cm-1", "create nnfdatamovements rabbit-01"}
		if got := c.requests(); !slices.Equal(got, want) {
			t.Errorf("later: %q\nwant: %q", got, want)
		}
	})
}

// What is wrong with the object is said before what is wrong with the profile,
// and by one step's name only.
func TestCreateSteps(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		c.mounts = nil
		c.mount(node, mount0, dws.TypeLustre)
		c.mount(rabbit, mount0, dws.TypeLustre)
		delete(c.mounts[0].Labels, api.LabelDirectiveIndex)
		r := wish
		r.Profile = "nope"
		const want = "Error during createNnfDataMovement(): unable to find directive index label on compute ClientMount, "
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrFailed) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("no label: %v", err)
		}
	})
}

func TestStatusPolls(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		synctest.Wait()
		c.requests()
		for range 50 {
			wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
			wait.Advance(time.Second)
		}
		c.set(uid, running)
		synctest.Wait()
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_RUNNING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		if got := c.requests(); len(got) > 0 {
			t.Errorf("polls made requests: %q", got)
		}
		if n := c.watching(); n != 1 {
			t.Errorf("%d watches", n)
		}
		wait.Advance(linger + time.Second)
		if n := c.watching(); n != 0 {
			t.Errorf("%d watches though nobody follows", n)
		}
	})
}

func TestStatusWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		start := time.Now()
		wantState(t, s, uid, 7, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		if d := time.Since(start); d != 7*time.Second {
			t.Errorf("waited %s, want the limit", d)
		}
		// The end of an invalid request has no end time.
		time.AfterFunc(time.Minute, func() { c.set(uid, running); c.set(uid, finished(nnf.MovementInvalid)) })
		start = time.Now()
		wantState(t, s, uid, -1, v1.DataMovementStatusResponse_COMPLETED, v1.DataMovementStatusResponse_INVALID)
		if d := time.Since(start); d != time.Minute {
			t.Errorf("waited %s, want until the end", d)
		}
	})
}

func TestStatusWaitEndsWithCaller(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Status(ctx, user(1001), job7, uid, -1)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		time.AfterFunc(time.Second, func() { s.EndWaits() })
		wantState(t, s, uid, -1, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		if d := time.Since(start); d != 4*time.Second {
			t.Errorf("the shutdown did not end the wait: %s", d)
		}
	})
}

func TestWaiterLimit(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid := created(t, s)
		for range 2 {
			go s.Status(t.Context(), user(1001), job7, uid, 60)
		}
		synctest.Wait()
		_, err := s.Status(t.Context(), user(1001), job7, uid, 60)
		if !errors.Is(err, datamovement.ErrExhausted) || log.count("waiting requests of uid 1001") != 1 {
			t.Errorf("third waiter: %v", err)
		}
		if _, err := s.Status(t.Context(), user(0), job7, uid, 1); err != nil {
			t.Errorf("another user: %v", err)
		}
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
	})
}

func TestForeign(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid := created(t, s)
		eve := user(1002)
		_, status := s.Status(t.Context(), eve, job7, uid, 0)
		_, missing := s.Status(t.Context(), eve, job7, "nnf-dm-node-zzz", 0)
		if got, want := status.Error(), strings.ReplaceAll(missing.Error(), "nnf-dm-node-zzz", uid); got != want {
			t.Errorf("foreign: %s\nmissing: %s", got, want)
		}
		for name, err := range map[string]error{
			"cancel": s.Cancel(t.Context(), eve, job7, uid), "delete": s.Delete(t.Context(), eve, datamovement.WorkflowRef{}, uid),
		} {
			if !errors.Is(err, datamovement.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if uids, err := s.List(t.Context(), eve, job7); err != nil || len(uids) > 0 {
			t.Errorf("list: %q, %v", uids, err)
		}
		if _, err := s.Create(t.Context(), eve, wish); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("create: %v", err)
		}
		if n := log.count("event=dm-refused"); n != 5 {
			t.Errorf("%d records, want 5", n)
		}
		if log.count("uid=1002 pid=7 rpc=/test object=default/job7") != 2 { // list and create
			t.Error("the record does not name who and what")
		}
		if c.movements[uid].Spec.Cancel {
			t.Error("cancelled by a foreigner")
		}
	})
}

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
			t.Error("it is still there, and the rabbit will never end it")
		}
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_COMPLETED, v1.DataMovementStatusResponse_CANCELLED)
		if _, err := s.Status(t.Context(), user(1002), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("a foreigner learns of it: %v", err)
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
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_CANCELLING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
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

func TestRepeatedRequest(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		r := wish
		r.Key = "mine"
		first, err1 := s.Create(t.Context(), user(1001), r)
		again, err2 := s.Create(t.Context(), user(1001), r)
		if err1 != nil || err2 != nil || first != again || len(c.movements) != 1 {
			t.Errorf("%q, %v; %q, %v", first, err1, again, err2)
		}
		r.Destination = "/lus/global/elsewhere"
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrInvalid) {
			t.Errorf("another request with the key: %v", err)
		}
	})
}

func TestRabbitLookup(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		nodes := c.system.Spec.StorageNodes
		c.system.Spec.StorageNodes = nil
		if _, err := s.Create(t.Context(), user(1001), wish); !errors.Is(err, datamovement.ErrUnavailable) {
			t.Errorf("no rabbit: %v", err)
		}
		c.system.Spec.StorageNodes = nodes
		wait.Advance(refreshAfter + time.Second)
		created(t, s)
	})
}

func TestExternalCompute(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		c.system.Spec.StorageNodes[0].ComputesAccess = nil
		c.system.Spec.ExternalComputeNodes = []dws.ExternalNode{{Name: node}}
		if _, err := s.Create(t.Context(), user(1001), wish); !errors.Is(err, datamovement.ErrFailed) {
			t.Errorf("gfs2: %v", err)
		}
		wait.Advance(time.Nanosecond) // what was read for the first one is no reason to refuse the next
		c.mounts = nil
		c.mount(node, mount0, dws.TypeLustre)
		c.mount("rabbit-02", mount0, dws.TypeLustre)
		c.mount("compute-99", "/elsewhere", dws.TypeLustre)
		uid := created(t, s)
		if dm := c.movements[uid]; dm.Namespace != nnf.NamespaceDataMovement || dm.Spec.Source.Path != wish.Source {
			t.Errorf("lustre: %+v", dm)
		}
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
	})
}

// The time of an answer must not tell a movement of somebody else, which is
// followed right now, from one that does not exist.
func TestForeignCostsWhatMissingCosts(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid, early := created(t, s), created(t, s)
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		if err := s.Cancel(t.Context(), user(1001), job7, early); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		eve, ctx := user(1002), t.Context()
		for name, ask := range map[string]func(uid string) error{
			"status":   func(uid string) error { _, err := s.Status(ctx, eve, job7, uid, 0); return err },
			"wait":     func(uid string) error { _, err := s.Status(ctx, eve, job7, uid, 9); return err },
			"cancel":   func(uid string) error { return s.Cancel(ctx, eve, job7, uid) },
			"delete":   func(uid string) error { return s.Delete(ctx, eve, job7, uid) },
			"snapshot": func(uid string) error { return snapshotOf(ctx, s, eve, uid) },
		} {
			for what, foreign := range map[string]string{"followed": uid, "cancelled early": early} {
				missing := foreign + "9"
				wait.Advance(absentTime) // what was asked before is forgotten
				var asked [2]string
				c.requests()
				before := log.count("event=dm-refused")
				for i, uid := range []string{foreign, missing} {
					if err := ask(uid); !errors.Is(err, datamovement.ErrNotFound) {
						t.Errorf("%s of one %s: %v", name, what, err)
					}
					asked[i] = strings.ReplaceAll(strings.Join(c.requests(), "; "), uid, "?")
				}
				if asked[0] != asked[1] {
					t.Errorf("%s of one %s: %s\nmissing: %s", name, what, asked[0], asked[1])
				}
				if n := log.count("event=dm-refused") - before; n != 1 {
					t.Errorf("%s of one %s: %d records", name, what, n)
				}
			}
		}
	})
}

func snapshotOf(ctx context.Context, s *Service, c datamovement.Caller, uid string) error {
	g, err := s.group(ctx, c, job7, []string{uid})
	if err != nil {
		return err
	}
	defer g.release()
	_, err = g.snapshot(ctx, g.members[0], false)
	return err
}

func TestAPIServerDown(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid := created(t, s)
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		synctest.Wait()
		c.mu.Lock()
		c.fail = apiError(500, "secret words of the server")
		c.mu.Unlock()
		wait.Advance(time.Second)
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		_, err := s.Create(t.Context(), user(1001), wish)
		if !errors.Is(err, datamovement.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
			t.Errorf("create: %v", err)
		}
		if log.count("event=dm-api") != 1 {
			t.Error("the cause is not in the log")
		}
	})
}

// One broken connection is no error for a job; a server that stays away is.
func TestReadAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		fail := func(err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.fail = err
		}
		broke := errors.New("connection reset by peer")
		fail(broke)
		time.AfterFunc(readAgain/2, func() { fail(nil) })
		c.requests()
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		if n := strings.Count(strings.Join(c.requests(), " "), "get nnfdatamovements"); n != 2 {
			t.Errorf("%d reads, want 2", n)
		}
		for err, want := range map[error]int{broke: 2, apiError(503, ""): 1, errMissing: 1} {
			fail(err)
			s.feed(rabbit).forget(uid)
			wait.Advance(absentTime)
			c.requests()
			if _, err := s.Status(t.Context(), user(1001), job7, uid, 0); err == nil {
				t.Error("no error")
			}
			if n := strings.Count(strings.Join(c.requests(), " "), "get nnfdatamovements"); n != want {
				t.Errorf("%v: %d reads, want %d", err, n, want)
			}
		}
	})
}

func TestCreateRate(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		for range 20 {
			created(t, s)
		}
		_, err := s.Create(t.Context(), user(1001), wish)
		if !errors.Is(err, datamovement.ErrExhausted) {
			t.Errorf("over the rate: %v", err)
		}
		if _, err := s.Create(t.Context(), user(0), wish); err != nil {
			t.Errorf("another user: %v", err)
		}
		wait.Advance(time.Second)
		created(t, s)
	})
}

// Refusals and failures of one user are logged up to a limit, and one record says
// how many were not; created movements are always logged.
func TestRecordLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lines)
		logger := slog.New(slog.NewTextHandler(log, nil))
		records := NewRecords(logger, 1, 5)
		s := New(Options{Node: node, SystemConfiguration: "default", Client: newCluster(), Settings: settings(t), Records: records, Log: logger})
		defer s.Close()
		defer records.Close()
		for range 100 {
			if _, err := s.Status(t.Context(), user(1001), job7, "no name!", 0); !errors.Is(err, datamovement.ErrInvalid) {
				t.Fatal(err)
			}
		}
		if n := log.count("event=dm-refused"); n != 5 {
			t.Errorf("%d records of 100 refusals, want 5", n)
		}
		created(t, s)
		if n := log.count("event=dm-created"); n != 1 {
			t.Errorf("%d records of a created movement", n)
		}
		if _, err := s.Status(t.Context(), user(1002), job7, "no name!", 0); err == nil || log.count("uid=1002") != 1 {
			t.Errorf("another user: %v, %d records", err, log.count("uid=1002"))
		}
		wait.Advance(time.Minute)
		if log.count("event=dm-suppressed") != 1 || log.count("uid=1001 count=95") != 1 {
			t.Errorf("no record of what was suppressed:\n%s", log.b.String())
		}
	})
}
