package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Invalid names are refused without a request; valid names are looked up and not found.
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
			t.Errorf("requests to the server: %q", got)
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

// List returns the caller's movements of this node only, whatever other objects have the
// labels.
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
		other("without-owner-kind", func(dm *nnf.DataMovement) { delete(dm.Labels, api.LabelOwnerKind) })
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

// Texts of callers in the log are limited.
func TestAuditRecordSize(t *testing.T) {
	log := new(lines)
	s := New(Options{Node: node, Client: newCluster(), Settings: settings(t), Log: slog.New(slog.NewTextHandler(log, nil))})
	defer s.Close()
	s.record(user(1001), strings.Repeat("x", 1<<20), strings.Repeat("y", 1<<20))
	if n := log.b.Len(); n > 2000 || log.count("event=dm-refused") != 1 {
		t.Errorf("a record of %d bytes", n)
	}
}

func TestOtherUser(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid := created(t, s)
		eve := user(1002)
		_, status := s.Status(t.Context(), eve, job7, uid, 0)
		_, missing := s.Status(t.Context(), eve, job7, "nnf-dm-node-zzz", 0)
		if got, want := status.Error(), strings.ReplaceAll(missing.Error(), "nnf-dm-node-zzz", uid); got != want {
			t.Errorf("of another user: %s\nmissing: %s", got, want)
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
		if _, err := s.Create(t.Context(), eve, usualRequest); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("create: %v", err)
		}
		if n := log.count("event=dm-refused"); n != 5 {
			t.Errorf("%d records, want 5", n)
		}
		if log.count("uid=1002 pid=7 rpc=/test object=default/job7") != 2 { // list and create
			t.Error("the record does not identify caller and object")
		}
		if c.movements[uid].Spec.Cancel {
			t.Error("cancelled by another user")
		}
	})
}

// The response time must not distinguish a movement of another user that is being
// followed from one that does not exist.
func TestOtherUserCostsLikeMissing(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid, early := created(t, s), created(t, s)
		wantState(t, s, uid, 0, pending, unknownStatus)
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
				wait.Advance(absentTime) // earlier results expire
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

// Repeated calls for a missing movement, or for one of another user, cause one request
// in some seconds (for a batch, one for each of the two namespaces), and get the same error and the
// same record each time.
func TestAbsentCostsOneRequest(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		foreign := created(t, s)
		batch, _ := batched(t, s, "", "a", "b")
		eve, ctx := user(1002), t.Context()
		for name, tt := range map[string]struct {
			ask     func() error
			records int // of each
		}{
			"foreign":              {func() error { _, err := s.Status(ctx, eve, job7, foreign, 0); return err }, 1},
			"missing":              {func() error { _, err := s.Status(ctx, eve, job7, foreign+"9", 0); return err }, 0},
			"other user's, cancel": {func() error { return s.Cancel(ctx, eve, job7, foreign) }, 1},
			"other user's, delete": {func() error { return s.Delete(ctx, eve, job7, foreign) }, 1},
			"other user's batch":   {func() error { _, err := s.group(ctx, eve, job7, []string{batch}); return err }, 1},
			"missing batch":        {func() error { _, err := s.group(ctx, eve, job7, []string{"batch-00112233445566778899"}); return err }, 0},
		} {
			synctest.Wait()
			wait.Advance(absentTime)
			for round := range 3 {
				c.requests()
				before := log.count("event=dm-refused")
				const times = 50
				var texts []string
				for range times {
					err := tt.ask()
					if !errors.Is(err, datamovement.ErrNotFound) {
						t.Fatalf("%s: %v", name, err)
					}
					texts = append(texts, err.Error())
				}
				if len(slices.Compact(texts)) != 1 {
					t.Errorf("%s: the errors differ", name)
				}
				asked := slices.DeleteFunc(c.requests(), func(r string) bool { return strings.HasPrefix(r, "watch") })
				want := 1
				if strings.HasSuffix(name, "batch") {
					want = 2
				}
				if len(asked) != want {
					t.Errorf("%s, round %d: %d requests: %q", name, round, len(asked), asked)
				}
				if n := log.count("event=dm-refused") - before; n != times*tt.records {
					t.Errorf("%s: %d records of %d refusals", name, n, times)
				}
				wait.Advance(absentTime)
			}
		}
	})
}

// A movement that was requested too early is found as soon as it exists, and the result
// for one user does not affect other users.
func TestAbsentUntilCreated(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		keyed := usualRequest
		keyed.Key = "k"
		uid, err := s.Create(t.Context(), user(1001), keyed)
		if err != nil {
			t.Fatal(err)
		}
		c.drop(uid)
		if _, err := s.Status(t.Context(), user(1001), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Fatal(err)
		}
		if again, err := s.Create(t.Context(), user(1001), keyed); err != nil || again != uid {
			t.Fatalf("%q %v", again, err)
		}
		wantState(t, s, uid, 0, pending, unknownStatus)
		if _, err := s.Status(t.Context(), user(1002), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Fatal(err)
		}
		wantState(t, s, uid, 0, pending, unknownStatus)
		// A request with another workflow is looked up separately.
		if _, err := s.Status(t.Context(), user(1001), datamovement.WorkflowRef{Name: "other"}, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Fatal(err)
		}
		wantState(t, s, uid, 0, pending, unknownStatus)
	})
}

// A handle is not the uid of a movement, and remains a handle.
func TestAbsentHandleIsABatch(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		handle, _ := batched(t, s, "", "a")
		if _, err := s.Status(t.Context(), user(1001), job7, handle, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Fatal(err)
		}
		g, err := s.group(t.Context(), user(1001), job7, []string{handle})
		if err != nil || len(g.members) != 1 {
			t.Fatal(err)
		}
		g.release()
	})
}

// Guessed names take limited memory, and those of one user leave space for other users.
func TestAbsentIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a absent
		for uid := range uint32(2 * maxAbsentAll / maxAbsent) {
			for i := range 2 * maxAbsent {
				a.add(user(uid), job7, fmt.Sprint("name-", i), "", "")
			}
			if n := a.users[uid]; n > maxAbsent {
				t.Fatalf("%d names of one user", n)
			}
		}
		if n := a.order.Len(); n != maxAbsentAll {
			t.Errorf("%d names in all, want %d", n, maxAbsentAll)
		}
		wait.Advance(absentTime)
		if _, ok := a.find(user(0), job7, "name-0"); ok || len(a.names)+len(a.users)+a.order.Len() != 0 {
			t.Errorf("%d names of %d users remain", len(a.names), len(a.users))
		}
	})
}

// Concurrent calls share a request, but no call gets a response that is older than the
// call.
func TestSharedLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lists
		key := listKey{1001, "x"}
		var sent, state atomic.Int64
		fetch := func() ([]*nnf.DataMovement, error) {
			sent.Add(1)
			items := make([]*nnf.DataMovement, state.Load())
			kube.Pause(context.Background(), time.Second)
			return items, nil
		}
		type answer struct{ asked, got int }
		answers := make(chan answer, 100)
		ask := func(k listKey) {
			at := int(state.Load())
			go func() {
				items, err := l.get(t.Context(), k, fetch)
				if err != nil {
					t.Error(err)
				}
				answers <- answer{at, len(items)}
			}()
			synctest.Wait()
		}
		for range 20 { // at 0, 0.1, ..., 1.9 s
			ask(key)
			state.Add(1)
			wait.Advance(time.Second / 10)
		}
		ask(listKey{1002, "x"})
		wait.Advance(10 * time.Second)
		for range 21 {
			if a := <-answers; a.got < a.asked {
				t.Errorf("a call that started at state %d got state %d", a.asked, a.got)
			}
		}
		if n := sent.Load(); n != 4 { // at 0, 1 and 2 s, and that of the other user
			t.Errorf("%d requests", n)
		}
		if len(l.next) != 0 {
			t.Errorf("%d requests remain", len(l.next))
		}
	})
}

// When a call ends, its request ends as well; the other calls send another one.
func TestSharedListSenderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lists
		key := listKey{1001, "x"}
		get := func(ctx context.Context) error {
			_, err := l.get(ctx, key, func() ([]*nnf.DataMovement, error) {
				select {
				case <-time.After(10 * time.Second):
					return nil, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
			return err
		}
		results := make(chan error, 3)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { results <- get(short) }() // sends the request
		synctest.Wait()
		go func() { results <- get(short) }() // waits for the next request
		synctest.Wait()
		go func() { results <- get(t.Context()) }()
		for range 2 {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if err := <-results; err != nil {
			t.Error(err)
		}
		if len(l.next) != 0 {
			t.Errorf("%d requests remain", len(l.next))
		}
	})
}

// The movements that the node has created are read from its two namespaces: the API server looks at
// each movement of a list's namespaces. Those of all nodes are read from all namespaces, or from
// these two if the account of the node may not list the others.
func TestNamespacesOfList(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		mine := created(t, s)
		everywhere, own := []string{"list movements"}, []string{"list " + rabbit + " movements", "list " + nnf.NamespaceDataMovement + " movements"}
		lists := func() (lists []string) {
			for _, r := range c.requests() {
				if strings.HasPrefix(r, "list ") && strings.HasSuffix(r, "movements") {
					lists = append(lists, r)
				}
			}
			return lists
		}
		if got := lists(); !slices.Equal(got, own) {
			t.Errorf("movements of the node for the quota: %q, want %q", got, own)
		}
		for _, x := range []struct {
			name    string
			all     bool
			refused []string
			want    []string
		}{
			{"of the node", false, nil, own},
			{"of all nodes", true, nil, everywhere},
			{"of all nodes, with an account of one node", true, everywhere, append(everywhere, own...)},
			{"of all nodes, with the permission again", true, nil, everywhere},
		} {
			changed := *s.settings.Load()
			changed.Policy.ListWorkflow = x.all
			s.settings.Store(&changed)
			for _, r := range x.refused {
				c.refuse(r, errForbidden)
			}
			uids, err := s.List(t.Context(), user(1001), job7)
			if got := lists(); err != nil || !slices.Equal(uids, []string{mine}) || !slices.Equal(got, x.want) {
				t.Errorf("%s: %v %v, with %q, want %q", x.name, uids, err, got, x.want)
			}
			for _, r := range x.refused {
				c.refuse(r, nil)
			}
		}
		for _, r := range append(everywhere, own...) {
			c.refuse(r, errForbidden)
		}
		if _, err := s.List(t.Context(), user(1001), job7); !errors.Is(err, datamovement.ErrFailed) {
			t.Errorf("without any permission: %v", err)
		}
	})
}
