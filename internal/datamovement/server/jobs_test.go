package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// changes are the changes after which a user may no longer copy from a mount.
var changes = map[string]func(*cluster){
	"the workflow leaves PreRun": func(c *cluster) { c.changeWorkflow(func(w *dws.Workflow) { w.Status.State = dws.StatePostRun }) },
	"the workflow gets another user": func(c *cluster) {
		c.changeWorkflow(func(w *dws.Workflow) { w.Spec.UserID = 1002 })
	},
	"the workflow is deleted":    func(c *cluster) { c.changeWorkflow(func(w *dws.Workflow) { w.Name = "gone" }) },
	"the compute is unmounting":  func(c *cluster) { c.changeMount(0, func(m *dws.ClientMount) { m.Spec.DesiredState = dws.Unmounted }) },
	"the compute has unmounted":  func(c *cluster) { c.changeMount(0, func(m *dws.ClientMount) { m.Status.Mounts[0].Ready = false }) },
	"the rabbit is unmounting":   func(c *cluster) { c.changeMount(1, func(m *dws.ClientMount) { m.Spec.DesiredState = dws.Unmounted }) },
	"the ClientMount is deleted": func(c *cluster) { c.changeMounts(func(m []*dws.ClientMount) []*dws.ClientMount { return m[1:] }) },
	"another workflow's ClientMount has the name": func(c *cluster) {
		c.changeMount(0, func(m *dws.ClientMount) { m.Labels = map[string]string{} })
	},
	"the rabbit's mount path changes": func(c *cluster) {
		c.changeMount(1, func(m *dws.ClientMount) { m.Spec.Mounts[0].MountPath = "/mnt/elsewhere" })
	},
}

func (c *cluster) changeWorkflow(f func(*dws.Workflow)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := *c.workflow
	f(&w)
	c.workflow = &w
}

func (c *cluster) changeMount(i int, f func(*dws.ClientMount)) {
	c.changeMounts(func(m []*dws.ClientMount) []*dws.ClientMount {
		cm := *m[i]
		cm.Spec.Mounts, cm.Status.Mounts = slices.Clone(cm.Spec.Mounts), slices.Clone(cm.Status.Mounts)
		f(&cm)
		m[i] = &cm
		return m
	})
}

func (c *cluster) changeMounts(f func([]*dws.ClientMount) []*dws.ClientMount) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mounts = f(slices.Clone(c.mounts))
}

func (c *cluster) active() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, dm := range c.movements {
		if !dm.Spec.Cancel {
			n++
		}
	}
	return n
}

// After the window nothing is created from outdated data, whatever is cached, even if the
// API server's cache still has the old state.
func TestNoCreationFromOutdatedData(t *testing.T) {
	for name, change := range changes {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", cache out of date ", late), func(t *testing.T) {
				bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
					created(t, s)
					if late {
						c.cached = slices.Clone(c.mounts)
					}
					change(c)
					wait.Advance(jobWindow + time.Millisecond)
					uid, err := s.Create(t.Context(), user(1001), usualRequest)
					if name == "the rabbit's mount path changes" {
						if err != nil || c.movements[uid].Spec.Source.Path != "/mnt/elsewhere/out/" {
							t.Errorf("%q, %v", uid, err)
						}
						return
					}
					if f := datamovement.Explain(err); f == nil || errors.Is(f.Kind, datamovement.ErrUnavailable) || c.active() != 1 {
						t.Errorf("%q, %v, %d live", uid, err, c.active())
					}
				})
			})
		}
	}
}

// A movement that was created within the window from outdated data is cancelled, whether
// it is running or not.
func TestCreationWithinWindowIsConfirmed(t *testing.T) {
	for name, change := range changes {
		for _, started := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", started ", started), func(t *testing.T) {
				bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
					first := created(t, s)
					wait.Advance(time.Millisecond)
					change(c)
					second := created(t, s)
					if started {
						c.set(second, running)
					}
					wait.Advance(2*jobWindow + time.Second)
					dm := c.movements[second]
					if started && (dm == nil || !dm.Spec.Cancel) || !started && dm != nil {
						t.Errorf("not cancelled: %+v", dm)
					}
					if dm := c.movements[first]; dm == nil || dm.Spec.Cancel {
						t.Errorf("the earlier one was cancelled: %+v", dm)
					}
					if log.count("no longer allowed") != 1 {
						t.Errorf("%d records", log.count("no longer allowed"))
					}
				})
			})
		}
	}
}

// Confirmation costs nothing in a loop of creations and one set of reads afterwards, and
// it waits for an unreachable API server.
func TestConfirmation(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		first := created(t, s)
		c.requests()
		for range 15 {
			wait.Advance(200 * time.Millisecond)
			created(t, s)
		}
		if n := len(c.requests()); n > 15+4*3 {
			t.Errorf("%d requests for 15 creations in 3 s", n)
		}
		wait.Advance(time.Minute)
		if n := len(c.requests()); n > 3 {
			t.Errorf("%d requests afterwards", n)
		}
		if c.active() != 16 {
			t.Errorf("%d of 16 are active", c.active())
		}
		created(t, s)
		wait.Advance(time.Millisecond)
		last := created(t, s)
		c.refuse("", apiError(503, ""))
		wait.Advance(20 * time.Second)
		changes["the compute is unmounting"](c)
		c.refuse("", nil)
		wait.Advance(10 * time.Second)
		if c.movements[last] != nil || c.movements[first] == nil {
			t.Error("the unconfirmed movement was not cancelled, or another one was")
		}
		wait.Advance(time.Minute)
		if n := len(s.jobs.slots); n != 1 || s.jobs.slots[jobKey{1001, job7}].confirming {
			t.Errorf("%d jobs are cached, and one is still being confirmed", n)
		}
	})
}

// A refusal is never based on a list that can be outdated.
func TestRefusalsUseLatestState(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		c.cached = []*dws.ClientMount{}
		created(t, s)
		old := *c.mounts[0]
		old.Status = dws.ClientMountStatus{}
		c.cached = []*dws.ClientMount{&old, c.mounts[1]}
		wait.Advance(2 * relistAfter)
		created(t, s)
	})
}

// A long batch stops when the workflow leaves PreRun.
func TestBatchStopsWithWorkflow(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		c.mu.Lock()
		c.onCreate = func() {
			c.workflow.Status.State = dws.StatePostRun
			kube.Pause(context.Background(), 2*jobWindow) // a slow server
		}
		c.mu.Unlock()
		_, results, err := s.CreateBatch(t.Context(), user(1001), usualRequest, pairsOf("a", "b", "c"), "")
		if err != nil || results[0].err != nil || !errors.Is(results[1].err, datamovement.ErrFailed) || !strings.Contains(fmt.Sprint(results[2].err), "PreRun") {
			t.Errorf("%+v, %v", results, err)
		}
	})
}

// Data that is cached for one caller is not used for another.
func TestCachePerCaller(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		created(t, s)
		c.requests()
		for _, c2 := range []datamovement.Caller{user(1002), {UID: 1001, GID: 7, RPC: "/test"}} {
			if _, err := s.Create(t.Context(), c2, usualRequest); err == nil {
				t.Errorf("created by %+v", c2)
			}
		}
		if got, want := c.requests(), []string{"get workflows default/job7"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q: the response time reveals which workflows exist", got, want)
		}
	})
}

// A key belongs to its movement until the movement is deleted. Then the key creates
// another one, whose status is independent of the first.
func TestKeyAfterCancel(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		r := usualRequest
		r.Key = "k"
		make1 := func() string {
			t.Helper()
			uid, err := s.Create(t.Context(), user(1001), r)
			if err != nil {
				t.Fatal(err)
			}
			return uid
		}
		first := make1()
		old := c.movements[first]
		if err := s.Cancel(t.Context(), user(1001), job7, first); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, first, 0, completed, cancelled)
		if again := make1(); again != first {
			t.Fatalf("%q, then %q", first, again)
		}
		c.set(first, running)
		wantState(t, s, first, 1, isRunning, unknownStatus)
		// A concurrent cancel affects the first one only.
		if err := s.cancel(t.Context(), user(1001), s.feed(rabbit), cancelledCopy(old)); err != nil {
			t.Error(err)
		}
		wantState(t, s, first, 0, isRunning, unknownStatus)
		if err := s.Delete(t.Context(), user(1001), job7, first); !errors.Is(err, datamovement.ErrActive) {
			t.Errorf("delete of the running one: %v", err)
		}
		if err := s.Cancel(t.Context(), user(1001), job7, first); err != nil || !c.movements[first].Spec.Cancel {
			t.Errorf("cancel of the running one: %v", err)
		}
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrInvalid) || !strings.Contains(err.Error(), "is being cancelled") {
			t.Errorf("during the cancellation: %v", err)
		}
		for _, result := range []string{nnf.MovementCancelled, nnf.MovementFailed, nnf.MovementInvalid} {
			c.set(first, finished(result))
			if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrInvalid) || !strings.Contains(err.Error(), result) || !strings.Contains(err.Error(), "delete it to copy again") {
				t.Errorf("after it has ended as %s: %v", result, err)
			}
		}
		synctest.Wait()
		if err := s.Delete(t.Context(), user(1001), job7, first); err != nil {
			t.Fatal(err)
		}
		make1()
		wantState(t, s, first, 0, pending, unknownStatus)
	})
}

func cancelledCopy(dm *nnf.DataMovement) *nnf.DataMovement {
	out := *dm
	out.Spec.Cancel = true
	return &out
}

// The rabbit's finalizer keeps a deleted movement for a moment.
func TestKeyDuringDeletion(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		r := usualRequest
		r.Key = "k"
		uid, err := s.Create(t.Context(), user(1001), r)
		if err != nil {
			t.Fatal(err)
		}
		deleting := metav1.Now()
		c.set(uid, func(dm *nnf.DataMovement) { dm.DeletionTimestamp = &deleting })
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrUnavailable) || !strings.Contains(err.Error(), "being deleted") {
			t.Errorf("during the deletion: %v", err)
		}
		time.AfterFunc(time.Second, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.movements, uid)
		})
		if again, err := s.Create(t.Context(), user(1001), r); err != nil || again != uid {
			t.Errorf("%q, %v", again, err)
		}
	})
}
