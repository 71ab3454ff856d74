package clientmount

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Sizes and limits of the tests below.
const (
	crowd    = 700 // ClientMounts whose profile does not exist
	qps      = 20  // the defaults of the configuration
	burst    = 40
	promised = 2 * time.Second // a good ClientMount is mounted and reported
)

// lustreObject returns a Lustre mount with its own profile.
func lustreObject(name, profile string) *dws.ClientMount {
	cm := testObject(dws.TypeLustre)
	cm.Name, cm.UID, cm.Labels[api.LabelPinnedProfileName] = name, types.UID("uid-"+name), profile
	m := &cm.Spec.Mounts[0]
	m.MountPath, m.Device.Lustre.FileSystemName = "/mnt/nnf/"+name, strings.ReplaceAll(name, "-", "")
	return cm
}

// runLimited is runLoop with a real client, which limits requests, and a server with these
// profiles.
func runLimited(t *testing.T, profiles []string, test func(t *testing.T, l *loop, s *apiServer)) {
	t.Helper()
	f := newFixture(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		s := newAPIServer(profiles...)
		client := s.client(t)
		l := startLoop(f, func(o *Options) { o.Client, o.RetryRate = server{client}, client.RetryRate() })
		test(t, l, s)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// missing returns ClientMounts whose profile does not exist. If same is set, all of them
// have the same profile.
func missing(same bool) (out []*dws.ClientMount) {
	for i := range crowd {
		profile := fmt.Sprintf("missing-%d", i)
		if same {
			profile = "missing"
		}
		out = append(out, lustreObject(fmt.Sprintf("bad-%d", i), profile))
	}
	return out
}

// checkRate fails the test if the requests in any period exceed rate and burst.
func checkRate(t *testing.T, requests []apiRequest, rate float64, burst int) {
	t.Helper()
	for i := range requests {
		for j := i; j < len(requests); j++ {
			span := requests[j].at.Sub(requests[i].at).Seconds()
			if most := float64(burst) + rate*span + 1; float64(j-i+1) > most {
				t.Fatalf("%d requests in %.2f s, allowed are %.1f", j-i+1, span, most)
			}
		}
	}
}

// A good ClientMount does not wait for failing ones, whether they have been failing for a
// while or are created just before it.
func TestFailingMountsDoNotDelayOthers(t *testing.T) {
	for _, same := range []bool{true, false} {
		for _, when := range []time.Duration{0, time.Second, 30 * time.Second, 10 * time.Minute} {
			t.Run(fmt.Sprintf("one profile %v, failing for %v", same, when), func(t *testing.T) {
				runLimited(t, []string{"present"}, func(t *testing.T, l *loop, s *apiServer) {
					l.Replace(nil)
					for _, cm := range missing(same) {
						l.Upsert(cm)
					}
					wait.Advance(when)
					began := time.Now()
					l.Upsert(lustreObject("good", "present"))
					took := s.readyAfter(t, "good", began)
					t.Logf("the good one is mounted and reported after %v", took)
					if took > promised {
						t.Errorf("the good one took %v, want at most %v", took, promised)
					}
					checkRate(t, s.since(time.Time{}), qps, burst)
				})
			})
		}
	}
}

// Objects that fail repeatedly share the rate of retries, and a corrected profile is
// noticed within the resulting time.
func TestRetriesShareARate(t *testing.T) {
	runLimited(t, nil, func(t *testing.T, l *loop, s *apiServer) {
		l.Replace(missing(false))
		wait.Advance(30 * time.Minute) // until all pauses are at their longest
		began := time.Now()
		const window = 5 * time.Minute
		wait.Advance(window)
		requests := s.since(began)
		const share = qps / 4.0
		t.Logf("%.1f requests per second", float64(len(requests))/window.Seconds())
		checkRate(t, requests, share, burst/4)
		cycle := time.Duration(crowd * retrySlack / share * float64(time.Second))
		seen := map[string]int{}
		for _, r := range requests {
			seen[r.line]++
		}
		if len(seen) != crowd {
			t.Errorf("%d of %d failing objects were retried in %v", len(seen), crowd, window)
		}
		const every = 20 // each attempt writes a record, which takes real time
		for i := 0; i < crowd; i += every {
			s.setProfile(fmt.Sprintf("missing-%d", i))
		}
		began = time.Now()
		slowest := time.Duration(0)
		for i := 0; i < crowd; i += every {
			slowest = max(slowest, s.readyAfter(t, fmt.Sprintf("bad-%d", i), began))
		}
		t.Logf("all corrected profiles are noticed within %v", slowest)
		if slowest > cycle+10*time.Second {
			t.Errorf("noticed after %v, want at most %v", slowest, cycle)
		}
	})
}

// An object that fails for the first time is retried as soon as if no other objects were
// failing.
func TestNewFailureIsRetriedSoon(t *testing.T) {
	runLimited(t, nil, func(t *testing.T, l *loop, s *apiServer) {
		l.Replace(missing(false))
		wait.Advance(30 * time.Minute)
		l.Upsert(lustreObject("late", "late"))
		wait.Advance(100 * time.Millisecond)
		s.setProfile("late")
		if took := s.readyAfter(t, "late", time.Now()); took > promised {
			t.Errorf("retried after %v", took)
		}
	})
}

// After a change of an object, its next attempt starts immediately and is not a retry.
func TestChangeEndsRetries(t *testing.T) {
	runLimited(t, nil, func(t *testing.T, l *loop, s *apiServer) {
		bad := missing(false)
		l.Replace(bad)
		wait.Advance(5 * time.Minute)
		began := time.Now()
		for _, cm := range bad[:10] {
			changed := cm.DeepCopyObject().(*dws.ClientMount)
			changed.Spec.DesiredState = dws.Unmounted
			changed.Generation++
			l.Upsert(changed)
		}
		for _, cm := range bad[:10] {
			if took := s.readyAfter(t, cm.Name, began); took > promised {
				t.Errorf("%s is unmounted after %v", cm.Name, took)
			}
		}
	})
}

// After a restart of the daemon, the first attempt of an object whose status has an error
// is a retry.
func TestKnownFailuresDoNotDelayOthers(t *testing.T) {
	runLimited(t, []string{"present"}, func(t *testing.T, l *loop, s *apiServer) {
		list := missing(false)
		for _, cm := range list {
			cm.Status.Error = &dws.ResourceError{DebugMessage: "mount/unmount failed"}
			cm.Status.Mounts = []dws.MountStatus{{State: dws.Mounted}}
		}
		list = slices.Insert(list, crowd/2, lustreObject("good", "present"))
		began := time.Now()
		l.Replace(list)
		if took := s.readyAfter(t, "good", began); took > promised {
			t.Errorf("the good one in the middle took %v", took)
		}
	})
}

// Pauses grow, have jitter, and do not exceed the maximum.
func TestPause(t *testing.T) {
	for n := 1; n < 40; n++ {
		for range 20 {
			d := pause(n, 30*time.Second, false)
			if d > 30*time.Second || d < firstPause*8/10 || n > 10 && d < 24*time.Second {
				t.Fatalf("pause %d is %v", n, d)
			}
		}
	}
	if d := pause(1, 30*time.Second, true); d < 24*time.Second {
		t.Errorf("a permanent failure is retried after %v", d)
	}
}
