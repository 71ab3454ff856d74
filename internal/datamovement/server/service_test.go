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

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func TestStatusPolls(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		wantState(t, s, uid, 0, pending, unknownStatus)
		synctest.Wait()
		c.requests()
		for range 50 {
			wantState(t, s, uid, 0, pending, unknownStatus)
			wait.Advance(time.Second)
		}
		c.set(uid, running)
		synctest.Wait()
		wantState(t, s, uid, 0, isRunning, unknownStatus)
		if got := c.requests(); len(got) > 0 {
			t.Errorf("requests caused by polls: %q", got)
		}
		if n := c.watching(); n != 1 {
			t.Errorf("%d watches", n)
		}
		wait.Advance(linger + time.Second)
		if n := c.watching(); n != 0 {
			t.Errorf("%d watches without followers", n)
		}
	})
}

func TestStatusWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		start := time.Now()
		wantState(t, s, uid, 7, pending, unknownStatus)
		if d := time.Since(start); d != 7*time.Second {
			t.Errorf("waited %s, want the limit", d)
		}
		// An invalid request that has ended has no end time.
		time.AfterFunc(time.Minute, func() { c.set(uid, running); c.set(uid, finished(nnf.MovementInvalid)) })
		start = time.Now()
		wantState(t, s, uid, -1, completed, invalid)
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
		wantState(t, s, uid, -1, pending, unknownStatus)
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
		wantState(t, s, uid, 0, pending, unknownStatus)
	})
}

func TestAPIServerDown(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		uid := created(t, s)
		wantState(t, s, uid, 0, pending, unknownStatus)
		synctest.Wait()
		c.refuse("", apiError(500, "secret words of the server"))
		wait.Advance(time.Second)
		wantState(t, s, uid, 0, pending, unknownStatus)
		_, err := s.Create(t.Context(), user(1001), usualRequest)
		if !errors.Is(err, datamovement.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
			t.Errorf("create: %v", err)
		}
		if log.count("event=dm-api") != 1 {
			t.Error("the cause is not in the log")
		}
	})
}

// A single broken connection causes no error for a job; an unreachable server does.
func TestReadAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		fail := func(err error) { c.refuse("", err) }
		broke := errors.New("connection reset by peer")
		fail(broke)
		time.AfterFunc(readAgain/2, func() { fail(nil) })
		c.requests()
		wantState(t, s, uid, 0, pending, unknownStatus)
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

// Refusals and failures of one user are logged up to a limit, and one record reports the
// number of suppressed records. Created movements are always logged.
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
			t.Errorf("no record of the suppressed records:\n%s", log.b.String())
		}
	})
}

func TestEvents(t *testing.T) {
	seen := make(map[string]string)
	for _, e := range append(daemon.Events(), Events()...) {
		if !e.Valid() {
			t.Errorf("%+v is not valid", e)
		}
		for _, key := range []string{e.ID, e.Name} {
			if seen[key] != "" {
				t.Errorf("%s: %s and %s", key, seen[key], e.Name)
			}
			seen[key] = e.Name
		}
	}
}

// The line is reported when it changes, and only then.
func TestStatusLine(t *testing.T) {
	var got []string
	s := statusLine{report: func(text string) { got = append(got, text) }}
	want := func(lines ...string) {
		t.Helper()
		if !slices.Equal(got, lines) {
			t.Errorf("%q, want %q", got, lines)
		}
		got = nil
	}
	s.watch("rabbit-01", false)
	s.watch("rabbit-01", false)
	want("watching the data movements in rabbit-01")
	s.watch("nnf-dm-system", false)
	want("watching the data movements in nnf-dm-system, rabbit-01")
	s.watch("rabbit-01", true)
	s.watch("rabbit-01", true)
	want("the watch on the data movements in rabbit-01 failed; retrying")
	s.watch("nnf-dm-system", true)
	want("the watch on the data movements in nnf-dm-system, rabbit-01 failed; retrying")
	s.end("rabbit-01")
	want("the watch on the data movements in nnf-dm-system failed; retrying")
	s.watch("nnf-dm-system", false)
	want("watching the data movements in nnf-dm-system")
	s.end("nnf-dm-system")
	want("waiting for requests")
	new(statusLine).watch("no report function", true)
}
