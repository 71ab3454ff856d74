package clientmount

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/node"
)

// slowSearch finds a holder with a file open after a moment and one that has
// only mapped one after another; it stops when it has looked at everybody.
type slowSearch struct {
	Machine
	open, mapped, all time.Duration
	searches          int
}

func (s *slowSearch) Holders(ctx context.Context, _ node.Mount, _ int) (list []node.Holder, err error) {
	s.searches++
	began := time.Now()
	select {
	case <-time.After(s.all):
	case <-ctx.Done():
		err = ctx.Err()
	}
	for kind, after := range map[string]time.Duration{"fd": s.open, "mmap": s.mapped} {
		if after > 0 && after <= time.Since(began) {
			list = append(list, node.Holder{PID: 1, Kind: kind})
		}
	}
	return list, err
}

// The search takes 150 ms at most when it has an answer by then, else 2 s more.
func TestSearchForHolders(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name       string
		search     slowSearch
		found      int
		took       time.Duration
		searches   int
		incomplete bool
	}{
		{"quick", slowSearch{open: 1 * ms, mapped: 20 * ms, all: 30 * ms}, 2, 30 * ms, 1, false},
		{"nobody", slowSearch{all: 30 * ms}, 0, 30 * ms, 1, false},
		{"one in time is enough", slowSearch{open: 50 * ms, mapped: 400 * ms, all: 500 * ms}, 1, 150 * ms, 1, true},
		{"late is better than never", slowSearch{mapped: 400 * ms, all: 500 * ms}, 1, 650 * ms, 2, false},
		{"not for ever", slowSearch{all: time.Hour}, 0, 2150 * ms, 2, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				r := &runner{machine: &tt.search}
				list, err := r.holders(t.Context(), node.Mount{})
				if len(list) != tt.found || time.Since(began) != tt.took || tt.search.searches != tt.searches {
					t.Errorf("%v after %v and %d searches", list, time.Since(began), tt.search.searches)
				}
				if errors.Is(err, context.DeadlineExceeded) != tt.incomplete {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}
