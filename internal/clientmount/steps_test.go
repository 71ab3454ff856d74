package clientmount

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// slowSearch finds a holder with an open file after some time, and one with a mapped file
// later; it ends when it has inspected all processes.
type slowSearch struct {
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

// The search takes at most 150 ms if it finds a holder in that time, otherwise at most 2 s
// more.
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
		{"no holder", slowSearch{all: 30 * ms}, 0, 30 * ms, 1, false},
		{"one holder in time", slowSearch{open: 50 * ms, mapped: 400 * ms, all: 500 * ms}, 1, 150 * ms, 1, true},
		{"a holder in the second search", slowSearch{mapped: 400 * ms, all: 500 * ms}, 1, 650 * ms, 2, false},
		{"time limit", slowSearch{all: time.Hour}, 0, 2150 * ms, 2, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				list, err := findHolders(t.Context(), 16, func(ctx context.Context, limit int) ([]node.Holder, error) {
					return tt.search.Holders(ctx, node.Mount{}, limit)
				})
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

// The holders of a busy mount are in the status, and are logged once rather than at each
// attempt.
func TestBusyMountNamesTheHolder(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	var out bytes.Buffer
	f.rec.log = slog.New(slog.NewTextHandler(&out, nil))
	f.machine.fail["umount"] = &node.CommandError{Line: "umount " + testPath, Stderr: "umount: " + testPath + ": target is busy.\n", Err: node.ExitStatus(32)}
	f.want(dws.Unmounted)
	for range 5 {
		f.reconcile()
		st := f.server.object().Status
		if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "in use by pid 4242 (vim, uid 1001): cwd "+testPath+"/src") ||
			st.Mounts[0].Ready || st.Mounts[0].State != dws.Unmounted {
			t.Fatalf("status %s", describe(&st))
		}
	}
	if n := strings.Count(out.String(), "mount is in use"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &out)
	}
	delete(f.machine.fail, "umount")
	f.reconcile()
	if s := f.server.object().Status; !s.AllReady {
		t.Errorf("%+v", s)
	}
}
