package clientmount

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Whether a read is shared depends on fresh and on the progress of the read.
func TestSharedReads(t *testing.T) {
	const queue, travel = time.Second, time.Second // time before and after the request is sent
	for _, tt := range []struct {
		name  string
		after time.Duration // when the second call is made
		fresh bool
		reads int
	}{
		{"waiting in the limiter", queue / 2, false, 1},
		{"waiting in the limiter, fresh", queue / 2, true, 1},
		{"running", queue + travel/2, false, 1},
		{"running, fresh", queue + travel/2, true, 2},
		{"just ended", queue + travel + shareFor/2, false, 1},
		{"just ended, fresh", queue + travel + shareFor/2, true, 2},
		{"ended", queue + travel + shareFor*2, false, 2},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fails %v", tt.name, fails), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var s shared[int]
					reads := 0
					failure := errors.New("no such profile")
					f := func(ctx context.Context) (int, error) {
						reads++
						n := reads
						<-time.After(queue)
						kube.Sending(ctx)
						<-time.After(travel)
						if fails {
							return 0, failure
						}
						return n, nil
					}
					check := func(got int, err error, want int) {
						if fails && !errors.Is(err, failure) || !fails && (err != nil || got != want) {
							t.Errorf("got %d, %v", got, err)
						}
					}
					done := make(chan struct{})
					go func() {
						got, err := s.get(t.Context(), "p", false, f)
						check(got, err, 1)
						close(done)
					}()
					wait.Advance(tt.after)
					got, err := s.get(t.Context(), "p", tt.fresh, f)
					check(got, err, tt.reads)
					<-done
					if reads != tt.reads {
						t.Errorf("%d reads, want %d", reads, tt.reads)
					}
					wait.Advance(2 * shareFor)
					s.mu.Lock()
					defer s.mu.Unlock()
					if len(s.reads) > 0 {
						t.Error("a read is kept")
					}
				})
			})
		}
	}
}

// A read is cancelled when its last caller gives up, not when the first one does.
func TestSharedReadCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shared[int]
		ended := 0
		f := func(ctx context.Context) (int, error) {
			select {
			case <-time.After(time.Minute):
				return 7, nil
			case <-ctx.Done():
				ended++
				return 0, ctx.Err()
			}
		}
		short := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := s.get(ctx, "p", false, f)
			return err
		}
		first := make(chan error, 1)
		go func() { first <- short() }()
		synctest.Wait()
		if got, err := s.get(t.Context(), "p", false, f); got != 7 || err != nil {
			t.Errorf("got %d, %v", got, err)
		}
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first got %v", err)
		}
		wait.Advance(2 * shareFor)
		if err := short(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the last got %v", err)
		}
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if ended != 1 || len(s.reads) > 0 {
			t.Errorf("%d reads ended early, want 1; %d are kept", ended, len(s.reads))
		}
	})
}

func TestSharedReadPanics(t *testing.T) {
	var s shared[int]
	defer func() {
		if recover() == nil {
			t.Error("the panic did not reach the caller")
		}
	}()
	_, _ = s.get(t.Context(), "p", false, func(context.Context) (int, error) { panic("defect") })
}

// ClientMounts of one workflow that start at the same time share one read of the profile.
// A retry or an unmount reads it again.
func TestProfileReads(t *testing.T) {
	runLimited(t, []string{"present"}, func(t *testing.T, l *loop, s *apiServer) {
		const n = 10
		var list []*dws.ClientMount
		for i := range n {
			list = append(list, lustreObject(fmt.Sprintf("m-%d", i), "present"))
		}
		reads := func(began time.Time) (n int) {
			for _, r := range s.since(began) {
				if r.line == fmt.Sprintf("GET /apis/%s/%s/namespaces/default/nnfstorageprofiles/present", api.GroupNNF, api.VersionsNNF[0]) {
					n++
				}
			}
			return n
		}
		l.Replace(list)
		wait.Advance(time.Minute)
		if got := reads(time.Time{}); got != 1 {
			t.Errorf("%d mounts that start at the same time: %d profile reads", n, got)
		}
		for i, want := range []dws.State{dws.Unmounted, dws.Mounted} {
			began := time.Now()
			changed := list[0].DeepCopyObject().(*dws.ClientMount)
			changed.Spec.DesiredState, changed.Generation = want, int64(i+2)
			l.Upsert(changed)
			wait.Advance(time.Minute)
			if got := reads(began); got != 1 {
				t.Errorf("%s: %d profile reads", want, got)
			}
		}
	})
}

func TestOtherFinalizersAreKept(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.server.cm.Finalizers = []string{"example.org/a"}
	stale := f.server.object()
	f.server.cm.Finalizers = []string{"example.org/a", "example.org/b"}
	if res := f.rec.reconcile(context.Background(), context.Background(), f.work, stale); res.failed {
		t.Fatalf("%+v", res)
	}
	f.expect("finalizers", f.server.object().Finalizers, []string{"example.org/a", "example.org/b", api.FinalizerClientMount})
	f.delete()
	f.reconcile()
	f.expect("finalizers", f.server.object().Finalizers, []string{"example.org/a", "example.org/b"})
}
