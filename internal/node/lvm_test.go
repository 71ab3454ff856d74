package node

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	lvsLine = `lvs --nolock --config 'log{command_names=0 prefix="  "}' --reportformat json -o vg_name,lv_name,lv_attr --select vg_name=v_0`
	vgsLine = `vgs --nolock --config 'log{command_names=0 prefix="  "}' --reportformat json -o vg_name --select vg_name=v_0`
	lvsOut  = `  {
      "report": [
          {
              "lv": [
                  {"vg_name":"v_0", "lv_name":"lv-0", "lv_attr":"-wi-a-----"},
                  {"vg_name":"v_0", "lv_name":"lv-1", "lv_attr":"-wi-------"},
                  {"vg_name":"other", "lv_name":"lv-0", "lv_attr":"-wi-ao----"}
              ]
          }
      ]
  }`
)

func TestLVs(t *testing.T) {
	f := &fake{answers: map[string]string{lvsLine: lvsOut}}
	lvs, err := (&Node{Exec: f}).LVs(t.Context(), "v_0", time.Minute)
	want := []LV{{"v_0", "lv-0", "-wi-a-----"}, {"v_0", "lv-1", "-wi-------"}}
	if err != nil || !slices.Equal(lvs, want) {
		t.Errorf("got %v, %v", lvs, err)
	}
	if !lvs[0].Active() || lvs[1].Active() {
		t.Error("activity")
	}
	if f.last.Timeout != time.Minute {
		t.Error("the time limit was lost")
	}
}

func TestLVActive(t *testing.T) {
	for attr, want := range map[string]bool{"-wi-a-----": true, "-wi-ao----": true, "-wi-s-----": false, "": false, "-wi-": false, "-wi-a": true} {
		if got := (LV{Attr: attr}).Active(); got != want {
			t.Errorf("%q: %v", attr, got)
		}
	}
}

// The group's name is part of a selection, so nothing but a name gets there.
func TestVGNames(t *testing.T) {
	f := &fake{}
	n := &Node{Exec: f}
	for _, vg := range []string{"", "-x", "a b", "a||vg_name!=x", "a\n", ".", "..", "a/b", "é", strings.Repeat("x", 128)} {
		if _, err := n.LVs(t.Context(), vg, 0); err == nil {
			t.Errorf("lvs of %q", vg)
		}
		if _, err := n.HasVG(t.Context(), vg, 0); err == nil {
			t.Errorf("vgs of %q", vg)
		}
		if err := n.WaitVG(t.Context(), vg, time.Hour, 0); err == nil {
			t.Errorf("wait for %q", vg)
		}
	}
	if len(f.lines) > 0 {
		t.Errorf("ran %q", f.lines)
	}
	if err := checkVG("2c5d0000-0000-4000-8000-00000000000b_0"); err != nil {
		t.Error(err)
	}
}

func TestHasVG(t *testing.T) {
	for out, want := range map[string]bool{
		`{"report":[{"vg":[{"vg_name":"v_0"}]}]}`:  true,
		`{"report":[{"vg":[{"vg_name":"v_00"}]}]}`: false,
		`{"report":[{"vg":[]}]}`:                   false,
		`{"report":[]}`:                            false,
	} {
		n := &Node{Exec: &fake{answers: map[string]string{vgsLine: out}}}
		if got, err := n.HasVG(t.Context(), "v_0", 0); err != nil || got != want {
			t.Errorf("%s: %v, %v", out, got, err)
		}
	}
}

func TestBadToolOutput(t *testing.T) {
	long := "  WARNING: something is wrong " + strings.Repeat("x", 1000)
	n := &Node{Exec: &fake{answers: map[string]string{lvsLine: long, vgsLine: ""}}}
	_, err := n.LVs(t.Context(), "v_0", 0)
	if err == nil || !strings.HasPrefix(err.Error(), "lvs printed") || !strings.Contains(err.Error(), "WARNING: something") || len(err.Error()) > 400 {
		t.Errorf("lvs: %v", err)
	}
	if _, err := n.HasVG(t.Context(), "v_0", 0); err == nil || !strings.HasPrefix(err.Error(), "vgs printed") {
		t.Errorf("vgs: %v", err)
	}
}

func TestFailingTool(t *testing.T) {
	n := &Node{Exec: &fake{errors: map[string]error{lvsLine: ExitStatus(5)}}}
	if _, err := n.LVs(t.Context(), "v_0", 0); exitStatus(err) != 5 {
		t.Errorf("got %v", err)
	}
}

// runs is a Runner made of one function.
type runs func(ctx context.Context, c Command) (Result, error)

func (f runs) Run(ctx context.Context, c Command) (Result, error) { return f(ctx, c) }

func TestWaitVG(t *testing.T) {
	const yes, no = `{"report":[{"vg":[{"vg_name":"v_0"}]}]}`, `{"report":[{"vg":[]}]}`
	for _, tt := range []struct {
		name        string
		limit       time.Duration
		appears     time.Duration
		fail        error
		calls       int
		took        time.Duration
		is          error
		text        string
		cancelAfter time.Duration
	}{
		{name: "there", limit: time.Second, calls: 1},
		{name: "late", limit: time.Second, appears: 250 * time.Millisecond, calls: 4, took: 300 * time.Millisecond},
		{name: "at the last look", limit: 250 * time.Millisecond, appears: 250 * time.Millisecond, calls: 4, took: 250 * time.Millisecond},
		{name: "never", limit: time.Second, appears: time.Hour, calls: 11, took: time.Second, is: ErrTimeoutVG, text: "timeout waiting for VG v_0"},
		{name: "one look", appears: time.Hour, calls: 1, is: ErrTimeoutVG},
		{name: "fails for ever", limit: 100 * time.Millisecond, fail: ExitStatus(5), calls: 2, took: 100 * time.Millisecond, is: ExitStatus(5), text: "timeout waiting for VG v_0: "},
		{name: "no such program", limit: time.Hour, fail: exec.ErrNotFound, calls: 1, is: exec.ErrNotFound},
		{name: "cancelled", limit: time.Hour, appears: 2 * time.Hour, cancelAfter: 150 * time.Millisecond, calls: 3, took: 150 * time.Millisecond, is: context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, calls := time.Now(), 0
				n := &Node{Exec: runs(func(context.Context, Command) (Result, error) {
					calls++
					if tt.fail != nil {
						return Result{}, &CommandError{Err: tt.fail}
					}
					if time.Since(begin) >= tt.appears {
						return Result{Stdout: yes}, nil
					}
					return Result{Stdout: no}, nil
				})}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancelAfter > 0 {
					time.AfterFunc(tt.cancelAfter, cancel)
				}
				err := n.WaitVG(ctx, "v_0", tt.limit, time.Second)
				if !errors.Is(err, tt.is) || err != nil && !strings.HasPrefix(err.Error(), tt.text) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(begin); calls != tt.calls || took != tt.took {
					t.Errorf("%d calls in %v", calls, took)
				}
			})
		})
	}
}

func TestLockVG(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{}
		unlock, err := n.LockVG(t.Context(), "a")
		must(t, err)
		other, err := n.LockVG(t.Context(), "b") // another group does not wait
		must(t, err)
		other()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.LockVG(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "VG a") {
			t.Errorf("while it is held: %v", err)
		}

		var wg sync.WaitGroup
		inside, most := 0, 0
		for range 20 {
			wg.Go(func() {
				unlock, err := n.LockVG(t.Context(), "a")
				must(t, err)
				inside++
				most = max(most, inside)
				time.Sleep(time.Second) // of the bubble's clock
				inside--
				unlock()
				unlock() // twice does no harm
			})
		}
		synctest.Wait()
		if most != 0 {
			t.Error("somebody got in")
		}
		unlock()
		wg.Wait()
		if most != 1 {
			t.Errorf("%d at once", most)
		}
		if len(n.locks.locks) != 0 {
			t.Errorf("%d locks are kept", len(n.locks.locks))
		}
	})
}

func FuzzLVS(f *testing.F) {
	for _, s := range []string{lvsOut, `{"report":[{"lv":[]}]}`, `{"report":[]}`, `{}`, `null`, `[]`, ``, `{"report":[{"lv":[{"lv_attr":"x"}]}],"log":[]}`, `{"report":[{"lv":null}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lvs, err := parseLVS(s)
		if err != nil && (lvs != nil || !strings.HasPrefix(err.Error(), "lvs printed")) {
			t.Errorf("%v, %v", lvs, err)
		}
		for _, l := range lvs {
			if l.Active() && len(l.Attr) < 5 {
				t.Errorf("%q is active", l.Attr)
			}
		}
	})
}

func FuzzVGS(f *testing.F) {
	for _, s := range []string{`{"report":[{"vg":[{"vg_name":"v"}]}]}`, `{"report":[{"vg":[{}]}]}`, `{"report":{}}`, `null`, ``, `{"report":[{"vg":[{"vg_name":1}]}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := parseVGS(s)
		if err != nil && (names != nil || !strings.HasPrefix(err.Error(), "vgs printed")) {
			t.Errorf("%v, %v", names, err)
		}
	})
}
