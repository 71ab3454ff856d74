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
		begin := time.Now()
		var mu sync.Mutex
		told := map[string][]time.Duration{}
		tell := func(who string) func() {
			return func() {
				mu.Lock()
				defer mu.Unlock()
				told[who] = append(told[who], time.Since(begin))
			}
		}
		long, short := NewIdle(time.Minute, tell("long")), NewIdle(time.Second, tell("short"))
		long.Also(short)
		wait.Advance(10 * time.Second)
		long.Enter()
		wait.Advance(10 * time.Second)
		if !short.Busy() {
			t.Error("it was not told of the beginning")
		}
		long.Leave()
		wait.Advance(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		for who, want := range map[string][]time.Duration{"short": {time.Second, 21 * time.Second}, "long": {80 * time.Second}} {
			if !slices.Equal(told[who], want) {
				t.Errorf("%s told at %v, want %v", who, told[who], want)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	const d = 5 * time.Minute
	for _, tt := range []struct {
		name string
		do   func(i *Idle)
		want []time.Duration // when it tells, since the beginning
	}{
		{"nothing ever", func(*Idle) {}, []time.Duration{d}},
		{"something, for ever", (*Idle).Enter, nil},
		{"in the last moment", func(i *Idle) { wait.Advance(d - 1); i.Enter() }, nil},
		{"counts from the end", func(i *Idle) { i.Enter(); wait.Advance(time.Hour); i.Leave() }, []time.Duration{time.Hour + d}},
		{"the last one counts", func(i *Idle) {
			i.Enter()
			i.Enter()
			wait.Advance(time.Minute)
			i.Leave()
			wait.Advance(time.Hour)
			i.Leave()
		}, []time.Duration{time.Hour + time.Minute + d}},
		{"tells again", func(i *Idle) { wait.Advance(time.Hour); i.Enter(); i.Leave() }, []time.Duration{d, time.Hour + d}},
		{"shorter", func(i *Idle) { wait.Advance(time.Minute); i.Set(time.Second) }, []time.Duration{time.Minute + time.Second}},
		{"longer", func(i *Idle) { wait.Advance(time.Minute); i.Set(time.Hour) }, []time.Duration{time.Minute + time.Hour}},
		{"the same changes nothing", func(i *Idle) { wait.Advance(time.Minute); i.Set(d) }, []time.Duration{d}},
		{"never any more", func(i *Idle) { i.Set(0) }, nil},
		{"changed while busy", func(i *Idle) { i.Enter(); i.Set(time.Second); wait.Advance(time.Hour); i.Leave() }, []time.Duration{time.Hour + time.Second}},
		{"changed after it has told", func(i *Idle) { wait.Advance(time.Hour); i.Set(time.Second) }, []time.Duration{d, time.Hour + time.Second}},
		{"changed after the end", func(i *Idle) { i.Stop(); i.Set(time.Second) }, nil},
		{"stopped", (*Idle).Stop, nil},
		{"stopped while busy", func(i *Idle) { i.Enter(); i.Stop(); i.Leave() }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var mu sync.Mutex
				var got []time.Duration
				i := NewIdle(d, func() {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, time.Since(begin))
				})
				tt.do(i)
				wait.Advance(24 * time.Hour)
				mu.Lock()
				defer mu.Unlock()
				if len(got) != len(tt.want) {
					t.Fatalf("told at %v, want %v", got, tt.want)
				}
				for n := range got {
					if got[n] != tt.want[n] {
						t.Errorf("told at %v, want %v", got, tt.want)
					}
				}
			})
		})
	}
}

func TestIdleIsNeverToldWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busySince time.Time
		var mu sync.Mutex
		told := 0
		i := NewIdle(time.Second, func() {
			mu.Lock()
			defer mu.Unlock()
			told++
			// An activity may start in the same instant, but not before.
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
		if told == 0 {
			t.Error("never told")
		}
	})
}

func TestIdleNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, i := range []*Idle{nil, NewIdle(0, func() { t.Error("told") }), NewIdle(-1, func() { t.Error("told") })} {
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
