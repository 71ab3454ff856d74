package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

func pairsOf(names ...string) (out []pair) {
	for _, n := range names {
		out = append(out, pair{mount0 + "/" + n, "/lus/global/" + n})
	}
	return out
}

func batched(t *testing.T, s *Service, key string, names ...string) (handle string, uids []string) {
	t.Helper()
	handle, results, err := s.CreateBatch(t.Context(), user(1001), usualRequest, pairsOf(names...), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range results {
		if m.err != nil {
			t.Fatal(m.err)
		}
		uids = append(uids, m.uid)
	}
	return handle, uids
}

// An invalid batch creates nothing; an error of one pair does not affect the others.
func TestBatch(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*datamovement.Request)
		caller datamovement.Caller
		pairs  []pair
		key    string
		err    error
		text   string
		made   []bool // by pair
	}{
		"two":                     {pairs: pairsOf("a", "b"), made: []bool{true, true}},
		"none":                    {err: datamovement.ErrInvalid, text: "pairs is empty"},
		"too many":                {pairs: pairsOf("1", "2", "3", "4", "5", "6"), err: datamovement.ErrExhausted, text: "limits.batch_size"},
		"most":                    {pairs: pairsOf("1", "2", "3", "4", "5"), made: []bool{true, true, true, true, true}},
		"options":                 {pairs: pairsOf("a"), change: func(r *datamovement.Request) { r.DCPOptions = "$(id)" }, err: datamovement.ErrInvalid, text: "dcpOptions"},
		"slots":                   {pairs: pairsOf("a"), change: func(r *datamovement.Request) { r.Slots = -2 }, err: datamovement.ErrInvalid, text: "slots"},
		"key":                     {pairs: pairsOf("a"), key: "no key", err: datamovement.ErrInvalid, text: "request_key"},
		"another user's workflow": {pairs: pairsOf("a"), caller: user(1002), err: datamovement.ErrNotFound, text: "could not find workflow"},
		"no workflow":             {pairs: pairsOf("a"), change: func(r *datamovement.Request) { r.Workflow.Name = "job8" }, err: datamovement.ErrNotFound, text: "could not find workflow"},
		"one invalid pair":        {pairs: append(pairsOf("a"), pair{"b", "/lus/global/b"}, pair{mount0 + "/c", "/home/c"}, pair{mount0 + "/d", "/lus/global/d"}), made: []bool{true, false, false, true}},
		"all pairs invalid":       {pairs: []pair{{}, {"/x", "/y"}}, made: []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				r, caller := usualRequest, tt.caller
				if tt.change != nil {
					tt.change(&r)
				}
				if caller.RPC == "" {
					caller = user(1001)
				}
				handle, results, err := s.CreateBatch(t.Context(), caller, r, tt.pairs, tt.key)
				if tt.err != nil {
					if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) || handle != "" || len(c.movements) != 0 {
						t.Errorf("%q, %v, %d created", handle, err, len(c.movements))
					}
					return
				}
				if err != nil || len(results) != len(tt.made) {
					t.Fatalf("%+v, %v", results, err)
				}
				for i, m := range results {
					if (m.uid != "") != tt.made[i] || (m.err == nil) != tt.made[i] {
						t.Errorf("pair %d: %+v", i, m)
					}
					if dm := c.movements[m.uid]; tt.made[i] && (dm.Labels[api.LabelBatch] != handle || !strings.HasSuffix(dm.Spec.Source.Path, tt.pairs[i].source[len(mount0):])) {
						t.Errorf("pair %d: %+v", i, dm)
					}
				}
				if made := slices.Contains(tt.made, true); made != (datamovement.CheckHandle(handle) == nil) {
					t.Errorf("handle %q", handle)
				}
			})
		})
	}
}

// If the API server does not respond in time to a creation, the others of the batch do not wait as
// long one after another.
func TestBatchEndsWithTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		created(t, s)
		c.refuse("create", context.DeadlineExceeded)
		c.requests()
		_, results, err := s.CreateBatch(t.Context(), user(1001), usualRequest, pairsOf("a", "b", "c"), "key")
		if err != nil || len(results) != 3 {
			t.Fatalf("%+v, %v", results, err)
		}
		for i, r := range results {
			if f := datamovement.Explain(r.err); f == nil || f.Reason != v2.ErrorReason_TIMEOUT {
				t.Errorf("pair %d: %v", i, r.err)
			}
		}
		tries := 0
		for _, line := range c.requests() {
			if strings.HasPrefix(line, "create") {
				tries++
			}
		}
		if tries != 1 {
			t.Errorf("%d creations were tried", tries)
		}
	})
}

// A repeated batch with a key creates nothing; one without a key creates all again.
func TestBatchKeys(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		h1, uids1 := batched(t, s, "k", "a", "b")
		h2, uids2 := batched(t, s, "k", "a", "b")
		if h1 != h2 || !slices.Equal(uids1, uids2) || len(c.movements) != 2 {
			t.Errorf("%q %q, %q %q", h1, uids1, h2, uids2)
		}
		h3, _ := batched(t, s, "", "a")
		h4, _ := batched(t, s, "", "a")
		if h3 == h4 || h3 == h1 {
			t.Errorf("handles %q %q", h3, h4)
		}
		_, results, err := s.CreateBatch(t.Context(), user(1001), usualRequest, pairsOf("b", "a"), "k")
		if err != nil || !errors.Is(results[0].err, datamovement.ErrInvalid) || !errors.Is(results[1].err, datamovement.ErrInvalid) {
			t.Errorf("other pairs with the key: %+v, %v", results, err)
		}
	})
}

// Each pair counts towards the rate; refused pairs can be created later.
func TestBatchRate(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		for i := range 3 {
			batched(t, s, "", "a", "b", "c", "d", fmt.Sprint(i))
		}
		batched(t, s, "", "a", "b", "c")
		_, results, err := s.CreateBatch(t.Context(), user(1001), usualRequest, pairsOf("a", "b", "c", "d"), "k")
		if err != nil || results[1].err != nil || !errors.Is(results[2].err, datamovement.ErrExhausted) {
			t.Fatalf("%+v, %v", results, err)
		}
		wait.Advance(4 * time.Second)
		batched(t, s, "k", "a", "b", "c", "d")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		before := len(c.movements)
		if _, _, err := s.CreateBatch(ctx, user(1001), usualRequest, pairsOf("x", "y"), ""); !errors.Is(err, context.Canceled) || len(c.movements) != before {
			t.Errorf("cancelled call: %v, %d created", err, len(c.movements)-before)
		}
	})
}

// Names are uids and handles; no names means all; objects of other users are hidden.
func TestGroup(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		single := created(t, s)
		handle, parts := batched(t, s, "", "a", "b")
		all := append([]string{single}, parts...)
		slices.Sort(all)
		slices.Sort(parts)
		for name, tt := range map[string]struct {
			caller datamovement.Caller
			uids   []string
			want   []string
			err    error
		}{
			"one":                              {user(1001), []string{single}, []string{single}, nil},
			"the same uid twice":               {user(1001), []string{single, single}, []string{single}, nil},
			"batch":                            {user(1001), []string{handle}, parts, nil},
			"batch and one of its movements":   {user(1001), []string{handle, parts[0], single}, all, nil},
			"all":                              {user(1001), nil, all, nil},
			"all, root":                        {user(0), nil, all, nil},
			"all, of a user without movements": {user(1002), nil, nil, nil},
			"another's batch":                  {user(1002), []string{handle}, nil, datamovement.ErrNotFound},
			"no such batch":                    {user(1001), []string{"batch-00112233445566778899"}, nil, datamovement.ErrNotFound},
			"invalid handle":                   {user(1001), []string{"batch-x,dm.cray.hpe.com/initiator=y"}, nil, datamovement.ErrInvalid},
			"invalid uid":                      {user(1001), []string{""}, nil, datamovement.ErrInvalid},
			"too many":                         {user(1001), []string{"a", "b", "c", "d", "e", "f"}, nil, datamovement.ErrExhausted},
			"missing, detected by follow":      {user(1001), []string{"nnf-dm-missing"}, []string{"nnf-dm-missing"}, nil},
		} {
			g, err := s.group(t.Context(), tt.caller, job7, tt.uids)
			if tt.err != nil {
				if !errors.Is(err, tt.err) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var got []string
			for _, m := range g.members {
				got = append(got, m.uid)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: %q, want %q", name, got, tt.want)
			}
			g.release()
			g.release()
		}
		if _, err := s.group(t.Context(), user(1001), datamovement.WorkflowRef{Name: "job7"}, nil); !errors.Is(err, datamovement.ErrInvalid) {
			t.Errorf("workflow without namespace: %v", err)
		}
		for _, f := range s.feeds {
			if f.users != 0 {
				t.Errorf("%d still follow %s", f.users, f.namespace)
			}
		}
	})
}

// record follows a group and records what follow shows, one entry per round.
func record(t *testing.T, s *Service, caller datamovement.Caller, uids ...string) (rounds chan string, ended chan error) {
	t.Helper()
	rounds, ended = make(chan string, 100), make(chan error, 1)
	g, err := s.group(t.Context(), caller, job7, uids)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer g.release()
		var now []string
		ended <- g.follow(t.Context(), func(n snapshot) error {
			what := "deleted"
			if n.tombstone != nil {
				what = "cancelled"
			} else if n.dm != nil {
				what = n.dm.Status.State + n.dm.Status.Status
			}
			now = append(now, n.uid+" "+what)
			return nil
		}, func() error {
			rounds <- strings.Join(now, "; ")
			now = nil
			return nil
		})
	}()
	return rounds, ended
}

// A follower gets each state once, and the end of each movement.
func TestFollow(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		_, uids := batched(t, s, "", "a", "b", "c")
		a, b, d := uids[0], uids[1], uids[2]
		rounds, ended := record(t, s, user(1001), uids...)
		want := func(text string) {
			t.Helper()
			synctest.Wait()
			var got []string // intermediate states may be missing
			for len(rounds) > 0 {
				round := <-rounds
				if got = append(got, round); round == text {
					return
				}
			}
			t.Errorf("%q, want %q", got, text)
		}
		want(a + " ; " + b + " ; " + d + " ")
		c.set(b, running)
		want(b + " Running")
		if err := s.Cancel(t.Context(), user(1001), job7, a); err != nil {
			t.Fatal(err)
		}
		want(a + " cancelled")
		c.drop(d)
		s.feed(rabbit).forget(d)
		want(d + " deleted")
		select {
		case err := <-ended:
			t.Fatalf("ended while one movement is running: %v", err)
		default:
		}
		c.set(b, finished(nnf.MovementSuccess))
		want(b + " FinishedSuccess")
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A deleted movement is not read again, whatever happens to the others.
func TestFollowDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		_, uids := batched(t, s, "", "a", "b")
		rounds, ended := record(t, s, user(1001), uids...)
		synctest.Wait()
		c.requests()
		c.mu.Lock()
		delete(c.movements, uids[0])
		c.notify(rabbit, func(h kube.Handler[nnf.DataMovement]) { h.Delete(rabbit, uids[0]) })
		c.mu.Unlock()
		wait.Advance(time.Hour)
		for range 10 {
			c.set(uids[1], running)
			synctest.Wait()
		}
		if got := c.requests(); len(got) > 1 {
			t.Errorf("%d requests for one deletion", len(got))
		}
		if n := len(rounds); n > 15 {
			t.Errorf("%d reads", n)
		}
		c.set(uids[1], finished(nnf.MovementSuccess))
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Following ends on errors and at a shutdown, and never shows movements of other users.
func TestFollowEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid := created(t, s)
		_, ended := record(t, s, user(1002), uid)
		if err := <-ended; !errors.Is(err, datamovement.ErrNotFound) || log.count("uid=1002") != 1 {
			t.Errorf("another user: %v", err)
		}
		_, ended = record(t, s, user(1001), "nnf-dm-missing")
		if err := <-ended; !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("missing: %v", err)
		}
		_, first := record(t, s, user(1001), uid)
		_, second := record(t, s, user(1001), uid)
		synctest.Wait()
		_, third := record(t, s, user(1001), uid)
		if err := <-third; !errors.Is(err, datamovement.ErrExhausted) {
			t.Errorf("above the limit of waiters: %v", err)
		}
		s.EndWaits()
		for _, ended := range []chan error{first, second} {
			if err := <-ended; !errors.Is(err, datamovement.ErrUnavailable) || !strings.Contains(err.Error(), "stopping") {
				t.Errorf("at the shutdown: %v", err)
			}
		}
		full := errors.New("the stream is broken")
		g, err := s.group(t.Context(), user(1001), job7, []string{uid})
		if err != nil {
			t.Fatal(err)
		}
		defer g.release()
		if err := g.follow(t.Context(), func(snapshot) error { return nil }, func() error { return full }); !errors.Is(err, full) {
			t.Error(err)
		}
	})
}
