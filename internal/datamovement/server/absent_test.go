package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Who asks again and again for what is not there, or not theirs, costs one
// request for some seconds, and gets the same answer and the same record.
func TestAbsentCostsOneRequest(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		foreign := created(t, s)
		batch, _ := batched(t, s, "", "a", "b")
		eve, ctx := user(1002), t.Context()
		for name, tt := range map[string]struct {
			ask     func() error
			records int // of each
		}{
			"foreign":         {func() error { _, err := s.Status(ctx, eve, job7, foreign, 0); return err }, 1},
			"missing":         {func() error { _, err := s.Status(ctx, eve, job7, foreign+"9", 0); return err }, 0},
			"foreign, cancel": {func() error { return s.Cancel(ctx, eve, job7, foreign) }, 1},
			"foreign, delete": {func() error { return s.Delete(ctx, eve, job7, foreign) }, 1},
			"foreign batch":   {func() error { _, err := s.group(ctx, eve, job7, []string{batch}); return err }, 1},
			"missing batch":   {func() error { _, err := s.group(ctx, eve, job7, []string{"batch-00112233445566778899"}); return err }, 0},
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
					t.Errorf("%s: the answers differ", name)
				}
				asked := slices.DeleteFunc(c.requests(), func(r string) bool { return strings.HasPrefix(r, "watch") })
				if len(asked) != 1 {
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

// A movement that was requested too early is found as soon as it exists, and the
// answer to one user does not affect other users.
func TestAbsentUntilMade(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		keyed := wish
		keyed.Key = "k"
		uid, err := s.Create(t.Context(), user(1001), keyed)
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		delete(c.movements, uid)
		c.mu.Unlock()
		if _, err := s.Status(t.Context(), user(1001), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Fatal(err)
		}
		if again, err := s.Create(t.Context(), user(1001), keyed); err != nil || again != uid {
			t.Fatalf("%q %v", again, err)
		}
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		if _, err := s.Status(t.Context(), user(1002), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Fatal(err)
		}
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
		// Another workflow is another question.
		if _, err := s.Status(t.Context(), user(1001), datamovement.WorkflowRef{Name: "other"}, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Fatal(err)
		}
		wantState(t, s, uid, 0, v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS)
	})
}

// A handle is no movement's uid, and remains a handle.
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

// Guesses take bounded memory, and those of one user leave space for others.
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
			t.Errorf("%d names of %d users stay", len(a.names), len(a.users))
		}
	})
}
