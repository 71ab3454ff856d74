package clientmount

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// What the tests below promise.
const (
	crowd    = 700 // ClientMounts whose profile does not exist
	qps      = 20  // the defaults of the configuration
	burst    = 40
	promised = 2 * time.Second // a good ClientMount is mounted and reported
)

// apiServer answers the requests of a kube.Client in virtual time.
type apiServer struct {
	mu       sync.Mutex
	profiles map[string]bool
	finals   map[string][]string
	ready    map[string]time.Time // when a status said that all is ready
	requests []apiRequest
}

type apiRequest struct {
	at   time.Time
	line string
}

func newAPIServer(profiles ...string) *apiServer {
	s := &apiServer{profiles: map[string]bool{}, finals: map[string][]string{}, ready: map[string]time.Time{}}
	for _, p := range profiles {
		s.profiles[p] = true
	}
	return s
}

func (s *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests = append(s.requests, apiRequest{time.Now(), r.Method + " " + r.URL.Path})
	s.mu.Unlock()
	time.Sleep(3 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	code, out := s.answer(r)
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
}

func (s *apiServer) answer(r *http.Request) (int, any) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) == 2:
		return 200, map[string]any{"kind": "APIGroup", "versions": []any{map[string]any{"version": api.VersionsNNF[0]}}}
	case r.Method == http.MethodGet:
		name := parts[len(parts)-1]
		if !s.profiles[name] {
			return 404, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
				"message": name + " not found", "details": map[string]any{"name": name}}
		}
		p := testProfile()
		p.Name = name
		return 200, p
	}
	name := parts[6]
	body, _ := io.ReadAll(r.Body)
	if len(parts) == 8 {
		var patch struct{ Status dws.ClientMountStatus }
		if err := json.Unmarshal(body, &patch); err != nil {
			return 400, nil
		}
		if patch.Status.AllReady {
			s.ready[name] = time.Now()
		}
	} else {
		s.finals[name] = []string{api.FinalizerClientMount}
	}
	cm := &dws.ClientMount{}
	cm.Name, cm.Finalizers = name, s.finals[name]
	return 200, cm
}

func (s *apiServer) setProfile(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiles[name] = true
}

// since returns the requests from a moment on.
func (s *apiServer) since(t time.Time) (out []apiRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if !r.at.Before(t) {
			out = append(out, r)
		}
	}
	return out
}

// client returns a real kube.Client on the fake server.
func (s *apiServer) client(t *testing.T) *kube.Client {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"http://api.test"}}],"users":[{"name":"u","user":{}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := kube.Dial(kube.Options{Kubeconfig: config, QPS: qps, Burst: burst, Transport: s, Environ: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fairObject is a Lustre mount with a profile of its own.
func fairObject(name, profile string) *dws.ClientMount {
	cm := testObject(dws.TypeLustre)
	cm.Name, cm.UID, cm.Labels[api.LabelPinnedProfileName] = name, types.UID("uid-"+name), profile
	m := &cm.Spec.Mounts[0]
	m.MountPath, m.Device.Lustre.FileSystemName = "/mnt/nnf/"+name, strings.ReplaceAll(name, "-", "")
	return cm
}

// fairLoop runs a controller with the client's limits.
func fairLoop(t *testing.T, b *bench, s *apiServer) *loop {
	client := s.client(t)
	return startLoop(t, b, func(o *Options) {
		o.Client, o.RetryRate = Server{client}, client.RetryRate()
	})
}

// missing returns ClientMounts that wait for a profile; same has all of them
// wait for one.
func missing(same bool) (out []*dws.ClientMount) {
	for i := range crowd {
		profile := fmt.Sprintf("missing-%d", i)
		if same {
			profile = "missing"
		}
		out = append(out, fairObject(fmt.Sprintf("bad-%d", i), profile))
	}
	return out
}

// wait returns how long it takes for an object to be reported ready; the time starts at began.
func (s *apiServer) wait(t *testing.T, name string, began time.Time, limit time.Duration) time.Duration {
	t.Helper()
	for time.Since(began) < limit {
		s.mu.Lock()
		at, ok := s.ready[name]
		s.mu.Unlock()
		if ok {
			return at.Sub(began)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s is not ready after %v", name, limit)
	return 0
}

// checkRate fails if the requests of any span of time exceed rate and burst.
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

// A good ClientMount does not wait for those that fail, whether they have been
// failing for a while or are made in the same burst just before it.
func TestFailingMountsDoNotDelayOthers(t *testing.T) {
	for _, same := range []bool{true, false} {
		for _, when := range []time.Duration{0, time.Second, 30 * time.Second, 10 * time.Minute} {
			t.Run(fmt.Sprintf("one profile %v, failing for %v", same, when), func(t *testing.T) {
				b := newBench(t, dws.TypeLustre)
				synctest.Test(t, func(t *testing.T) {
					s := newAPIServer("present")
					l := fairLoop(t, b, s)
					l.c.Replace(nil)
					for _, cm := range missing(same) {
						l.c.Upsert(cm)
					}
					time.Sleep(when)
					began := time.Now()
					l.c.Upsert(fairObject("good", "present"))
					took := s.wait(t, "good", began, time.Hour)
					t.Logf("the good one is mounted and reported after %v", took)
					if took > promised {
						t.Errorf("the good one took %v, promised are %v", took, promised)
					}
					checkRate(t, s.since(time.Time{}), qps, burst)
					if err := l.stop(); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// Objects that keep failing share a budget, and a corrected profile is noticed
// within the time that follows from it.
func TestRetriesShareABudget(t *testing.T) {
	b := newBench(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		s := newAPIServer()
		l := fairLoop(t, b, s)
		l.c.Replace(missing(false))
		time.Sleep(30 * time.Minute) // until all pauses are at their longest
		began := time.Now()
		const window = 5 * time.Minute
		time.Sleep(window)
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
		const every = 20 // each writes a record, which takes real time
		for i := 0; i < crowd; i += every {
			s.setProfile(fmt.Sprintf("missing-%d", i))
		}
		began = time.Now()
		slowest := time.Duration(0)
		for i := 0; i < crowd; i += every {
			slowest = max(slowest, s.wait(t, fmt.Sprintf("bad-%d", i), began, time.Hour))
		}
		t.Logf("all corrected profiles are noticed within %v", slowest)
		if slowest > cycle+10*time.Second {
			t.Errorf("noticed after %v, promised are %v", slowest, cycle)
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// An object that fails for the first time while many have failed for long is
// retried as soon as if it were alone.
func TestNewFailureIsRetriedSoon(t *testing.T) {
	b := newBench(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		s := newAPIServer()
		l := fairLoop(t, b, s)
		l.c.Replace(missing(false))
		time.Sleep(30 * time.Minute)
		l.c.Upsert(fairObject("late", "late"))
		time.Sleep(100 * time.Millisecond)
		s.setProfile("late")
		if took := s.wait(t, "late", time.Now(), time.Hour); took > promised {
			t.Errorf("retried after %v", took)
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A change of an object ends its time as a retry, at once.
func TestChangeEndsTheRetry(t *testing.T) {
	b := newBench(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		s := newAPIServer()
		l := fairLoop(t, b, s)
		bad := missing(false)
		l.c.Replace(bad)
		time.Sleep(5 * time.Minute)
		began := time.Now()
		for _, cm := range bad[:10] {
			changed := cm.DeepCopyObject().(*dws.ClientMount)
			changed.Spec.DesiredState = dws.Unmounted
			changed.Generation++
			l.c.Upsert(changed)
		}
		for _, cm := range bad[:10] {
			if took := s.wait(t, cm.Name, began, time.Hour); took > promised {
				t.Errorf("%s is unmounted after %v", cm.Name, took)
			}
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// After a restart of the daemon, objects whose status says that they fail are
// retries from the start.
func TestKnownFailuresDoNotDelayOthers(t *testing.T) {
	b := newBench(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		s := newAPIServer("present")
		l := fairLoop(t, b, s)
		list := missing(false)
		for _, cm := range list {
			cm.Status.Error = &dws.ResourceError{DebugMessage: "mount/unmount failed"}
			cm.Status.Mounts = []dws.MountStatus{{State: dws.Mounted}}
		}
		list = slices.Insert(list, crowd/2, fairObject("good", "present"))
		began := time.Now()
		l.c.Replace(list)
		if took := s.wait(t, "good", began, time.Hour); took > promised {
			t.Errorf("the good one in the middle took %v", took)
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}
