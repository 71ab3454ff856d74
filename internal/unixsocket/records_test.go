package unixsocket

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// summaries collects the summaries of a Records.
type summaries struct {
	mu  sync.Mutex
	all []Suppressed
}

func (s *summaries) add(x Suppressed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, x)
}

func (s *summaries) take() []Suppressed {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.all
	s.all = nil
	return out
}

// A user has a burst, then a rate. One summary reports the suppressed records, and other
// users are not affected.
func TestRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported summaries
		r := NewRecords(RecordOptions{Rate: 2, Burst: 10, Suppressed: reported.add})
		allowed := func(uid uint32, n int) (yes int) {
			for range n {
				if r.Allow(uid) {
					yes++
				}
			}
			return yes
		}
		if n := allowed(7, 1000); n != 10 {
			t.Errorf("%d of a burst", n)
		}
		if n := allowed(8, 5); n != 5 {
			t.Errorf("%d of another user's", n)
		}
		wait.Advance(3 * time.Second)
		if n := allowed(7, 100); n != 6 {
			t.Errorf("%d after 3 s", n)
		}
		if got := reported.take(); len(got) != 0 {
			t.Errorf("a summary too early: %+v", got)
		}
		wait.Advance(summaryAfter)
		if got := reported.take(); !slices.Equal(got, []Suppressed{{UID: 7, Users: 1, Count: 990 + 94}}) {
			t.Errorf("summaries: %+v", got)
		}
		wait.Advance(time.Minute)
		if got := reported.take(); len(got) != 0 {
			t.Errorf("a summary of nothing: %+v", got)
		}
		if n := allowed(0, 20); n != 10 {
			t.Errorf("root: %d", n)
		}
		r.Close()
		if got := reported.take(); !slices.Equal(got, []Suppressed{{UID: 0, Users: 1, Count: 10}}) {
			t.Errorf("after Close: %+v", got)
		}
		r.Set(0, 0)
		if n := allowed(7, 1000); n != 1000 {
			t.Errorf("without a limit: %d", n)
		}
	})
}

// The number of records and of summaries is limited, however many users cause them.
func TestRecordsOfManyUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported summaries
		r := NewRecords(RecordOptions{Rate: 2, Burst: 10, Suppressed: reported.add})
		defer r.Close()
		const users, each = 3 * countedUsers, 4
		yes := 0
		for uid := range uint32(users) {
			for range each {
				if r.Allow(uid) {
					yes++
				}
			}
		}
		if yes != recordUsers*10 {
			t.Errorf("%d records, want %d", yes, recordUsers*10)
		}
		wait.Advance(summaryAfter)
		got := reported.take()
		sum := 0
		for _, s := range got {
			sum += s.Count
		}
		if len(got) != summaryUsers+1 || sum != users*each-yes || got[summaryUsers].Users != 0 {
			t.Errorf("%d summaries of %d records, want %d of %d: %+v", len(got), sum, summaryUsers+1, users*each-yes, got)
		}
	})
}

func TestNoRecords(t *testing.T) {
	var r *Records
	if !r.Allow(7) {
		t.Error("refused")
	}
	r.Close()
}
