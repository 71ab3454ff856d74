package clientmount

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
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

// A volume that is in use is reported with who uses it, once in the log; other failures
// start no search.
func TestDeactivationNamesTheHolder(t *testing.T) {
	inUse := &node.CommandError{Line: "lvchange --activate n", Stderr: "  Logical volume vg/lv contains a filesystem in use.\n", Err: node.ExitStatus(5)}
	holder := node.Holder{PID: 4242, UID: 1001, Command: "vim", Kind: "cwd", Path: "/src", Namespace: "4026532001", Unit: "session-3.scope"}
	for name, tt := range map[string]struct {
		fails   error
		holders []node.Holder
		broken  error
		want    string
		logged  int
	}{
		"holder":         {inUse, []node.Holder{holder}, nil, "in use by " + holder.String(), 1},
		"no process":     {inUse, nil, nil, "no process was found that uses it", 0},
		"no search":      {inUse, nil, errors.New("no /proc"), "could not find out who uses it: no /proc", 0},
		"another reason": {&node.CommandError{Line: "lvchange", Stderr: "  Volume group is exported", Err: node.ExitStatus(5)}, []node.Holder{holder}, nil, "exported", 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			b.reconcile()
			b.machine.done()
			b.machine.fail["lvchange"], b.machine.deviceHolders = tt.fails, tt.holders
			if tt.broken != nil {
				b.machine.fail["device holders"] = tt.broken
			}
			var out bytes.Buffer
			b.rec.log = slog.New(slog.NewTextHandler(&out, nil))
			b.want(dws.Unmounted)
			for range 2 {
				b.reconcile()
				st := b.server.object().Status
				if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "unable to deactivate block device") || !strings.Contains(st.Error.DebugMessage, tt.want) {
					t.Fatalf("status %s", describe(&st))
				}
			}
			if got := strings.Count(out.String(), "device is in use"); got != tt.logged {
				t.Errorf("logged %d times, want %d:\n%s", got, tt.logged, &out)
			}
			searched := slices.Contains(b.machine.done(), "holders of 253:7")
			if searched != node.IsInUse(tt.fails) {
				t.Errorf("searched %t", searched)
			}
			delete(b.machine.fail, "lvchange")
			b.reconcile()
			if st := b.server.object().Status; st.Error != nil || !st.Mounts[0].Ready {
				t.Errorf("status %s", describe(&st))
			}
		})
	}
}
