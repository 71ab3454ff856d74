package unixsocket

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// An Idle with a shorter time reports separately.
func TestIdleAlso(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		reported := map[string][]time.Duration{}
		report := func(who string) func() {
			return func() {
				mu.Lock()
				defer mu.Unlock()
				reported[who] = append(reported[who], time.Since(start))
			}
		}
		long, short := NewIdle(time.Minute, report("long")), NewIdle(time.Second, report("short"))
		long.Also(short)
		wait.Advance(10 * time.Second)
		long.Enter()
		wait.Advance(10 * time.Second)
		if !short.Busy() {
			t.Error("the start was not forwarded")
		}
		long.Leave()
		wait.Advance(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		for who, want := range map[string][]time.Duration{"short": {time.Second, 21 * time.Second}, "long": {80 * time.Second}} {
			if !slices.Equal(reported[who], want) {
				t.Errorf("%s reported at %v, want %v", who, reported[who], want)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	const d = 5 * time.Minute
	for _, tt := range []struct {
		name string
		do   func(i *Idle)
		want []time.Duration // times of the reports, since the start
	}{
		{"no activity", func(*Idle) {}, []time.Duration{d}},
		{"activity without end", (*Idle).Enter, nil},
		{"activity just before the report", func(i *Idle) { wait.Advance(d - 1); i.Enter() }, nil},
		{"from the end of the activity", func(i *Idle) { i.Enter(); wait.Advance(time.Hour); i.Leave() }, []time.Duration{time.Hour + d}},
		{"from the end of the last activity", func(i *Idle) {
			i.Enter()
			i.Enter()
			wait.Advance(time.Minute)
			i.Leave()
			wait.Advance(time.Hour)
			i.Leave()
		}, []time.Duration{time.Hour + time.Minute + d}},
		{"reports again", func(i *Idle) { wait.Advance(time.Hour); i.Enter(); i.Leave() }, []time.Duration{d, time.Hour + d}},
		{"shorter", func(i *Idle) { wait.Advance(time.Minute); i.Set(time.Second) }, []time.Duration{time.Minute + time.Second}},
		{"longer", func(i *Idle) { wait.Advance(time.Minute); i.Set(time.Hour) }, []time.Duration{time.Minute + time.Hour}},
		{"same value", func(i *Idle) { wait.Advance(time.Minute); i.Set(d) }, []time.Duration{d}},
		{"never", func(i *Idle) { i.Set(0) }, nil},
		{"changed while busy", func(i *Idle) { i.Enter(); i.Set(time.Second); wait.Advance(time.Hour); i.Leave() }, []time.Duration{time.Hour + time.Second}},
		{"changed after the report", func(i *Idle) { wait.Advance(time.Hour); i.Set(time.Second) }, []time.Duration{d, time.Hour + time.Second}},
		{"changed after the end", func(i *Idle) { i.Stop(); i.Set(time.Second) }, nil},
		{"stopped", (*Idle).Stop, nil},
		{"stopped while busy", func(i *Idle) { i.Enter(); i.Stop(); i.Leave() }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var mu sync.Mutex
				var got []time.Duration
				i := NewIdle(d, func() {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, time.Since(start))
				})
				tt.do(i)
				wait.Advance(24 * time.Hour)
				mu.Lock()
				defer mu.Unlock()
				if len(got) != len(tt.want) {
					t.Fatalf("reported at %v, want %v", got, tt.want)
				}
				for n := range got {
					if got[n] != tt.want[n] {
						t.Errorf("reported at %v, want %v", got, tt.want)
					}
				}
			})
		})
	}
}

func TestIdleNeverReportsWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busySince time.Time
		var mu sync.Mutex
		reported := 0
		i := NewIdle(time.Second, func() {
			mu.Lock()
			defer mu.Unlock()
			reported++
			// An activity may start at the same time, but not before.
			if !busySince.IsZero() && time.Since(busySince) > 0 {
				t.Errorf("reported %v after an activity had started", time.Since(busySince))
			}
		})
		r := rand.New(rand.NewPCG(3, 4))
		for range 5000 {
			<-time.After(time.Duration(r.IntN(4)) * 500 * time.Millisecond)
			mu.Lock()
			busySince = time.Now()
			mu.Unlock()
			i.Enter()
			<-time.After(time.Duration(r.IntN(4)) * 500 * time.Millisecond)
			mu.Lock()
			busySince = time.Time{}
			mu.Unlock()
			i.Leave()
		}
		if reported == 0 {
			t.Error("no report")
		}
	})
}

func TestIdleNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, i := range []*Idle{nil, NewIdle(0, func() { t.Error("reported") }), NewIdle(-1, func() { t.Error("reported") })} {
			i.Enter()
			if i.Busy() != (i != nil) {
				t.Error("Busy")
			}
			i.Leave()
			wait.Advance(time.Hour)
			i.Stop()
			i.Set(time.Second)
			wait.Advance(time.Hour)
		}
	})
}

func TestLeaveWithoutEnter(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewIdle(0, nil).Leave()
}
