package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// A response is cached until it expires, an error is not cached, and concurrent callers
// share one request.
func TestCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests, broken := 0, errors.New("broken")
		var fail error
		r := newCached(func(ctx context.Context) (int, error) {
			requests++
			kube.Pause(context.WithoutCancel(ctx), time.Second)
			return requests, fail
		})
		get := func(age time.Duration, value int, fresh bool) {
			t.Helper()
			if v, f, err := r.get(t.Context(), age); v != value || f != fresh || err != nil {
				t.Errorf("%d, fresh %v, %v; want %d, %v", v, f, err, value, fresh)
			}
		}
		fail = broken
		if _, _, err := r.get(t.Context(), time.Hour); !errors.Is(err, broken) {
			t.Error(err)
		}
		fail = nil
		get(time.Hour, 2, true)
		get(time.Hour, 2, false)
		wait.Advance(time.Hour - 1)
		get(time.Hour, 2, false)
		wait.Advance(time.Nanosecond)
		get(time.Hour, 3, true)
		get(0, 4, true)
		// An error does not replace the cached response.
		fail = broken
		if _, _, err := r.get(t.Context(), 0); !errors.Is(err, broken) {
			t.Error(err)
		}
		get(time.Hour, 4, false)
		fail = nil
		wait.Advance(time.Hour)
		for range 5 {
			go func() {
				if v, _, err := r.get(t.Context(), time.Hour); v != 6 || err != nil {
					t.Errorf("%d, %v", v, err)
				}
			}()
		}
		synctest.Wait()
		// A caller stops waiting when its context ends.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, _, err := r.get(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		wait.Advance(time.Minute)
		if requests != 6 {
			t.Errorf("%d requests", requests)
		}
	})
}

func TestRabbitOf(t *testing.T) {
	system := func(typ, rabbit string, computes ...string) dws.StorageNode {
		n := dws.StorageNode{Type: typ, Name: rabbit}
		for _, c := range computes {
			n.ComputesAccess = append(n.ComputesAccess, dws.ComputeAccess{Name: c})
		}
		return n
	}
	external := []dws.ExternalNode{{Name: "login-1"}, {Name: "compute-07.example.org"}}
	sc := &dws.SystemConfiguration{Spec: dws.SystemConfigurationSpec{ExternalComputeNodes: external, StorageNodes: []dws.StorageNode{
		system("Tape", "tape-1", "compute-01"), system(dws.TypeRabbit, "rabbit-1", "compute-01", "compute-02.example.org"), system(dws.TypeRabbit, "rabbit-2", "compute-02", "compute-03"),
		system(dws.TypeRabbit, "rabbit-3", "compute-01"),
	}}}
	for node, want := range map[string]string{
		"compute-01":                "rabbit-1", // the first entry of type Rabbit
		"compute-01.example.org":    "rabbit-1",
		"compute-02.example.org":    "rabbit-1", // the full name before the short one
		"compute-02.elsewhere.org":  "rabbit-2",
		"compute-02":                "rabbit-2",
		"login-1":                   "-",
		"login-1.example.org":       "-",
		"compute-07.example.org":    "-",
		"compute-07":                "",
		"compute":                   "",
		"compute-011":               "",
		"tape-1":                    "",
		"rabbit-1":                  "",
		"":                          "",
		"compute-03.a.b.c.d.e.f.gh": "rabbit-2",
	} {
		got, ok := rabbitOf(sc, node)
		if ok && got == "" {
			got = "-"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", node, got, want)
		}
	}
	if _, ok := rabbitOf(new(dws.SystemConfiguration), "compute-01"); ok {
		t.Error("found in an empty configuration")
	}
}

// The last known rabbit is used while the API server is unreachable, and is looked up
// again when it changes. A configured one is never looked up.
func TestRabbitIsKnown(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		if _, err := s.look.known(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.refuse("get systemconfigurations", errors.New("away"))
		wait.Advance(time.Hour)
		if name, err := s.look.known(t.Context()); err != nil || name != rabbit {
			t.Errorf("%q, %v", name, err)
		}
		if _, err := s.look.rabbit(t.Context()); err == nil {
			t.Error("an outdated rabbit is used for new data movements")
		}
		c.refuse("get systemconfigurations", nil)
		c.system.Spec.StorageNodes[0].Name = "rabbit-09"
		if name, err := s.look.rabbit(t.Context()); err != nil || name != "rabbit-09" {
			t.Errorf("after the move: %q, %v", name, err)
		}
		if name, err := s.look.known(t.Context()); err != nil || name != "rabbit-09" {
			t.Errorf("after the move: %q, %v", name, err)
		}
		c.requests()
		s.look.fixed = "rabbit-07"
		for _, f := range []func(context.Context) (string, error){s.look.rabbit, s.look.known} {
			if name, err := f(t.Context()); err != nil || name != "rabbit-07" {
				t.Errorf("configured: %q, %v", name, err)
			}
		}
		if got := c.requests(); len(got) != 0 {
			t.Errorf("requests for the configured rabbit: %q", got)
		}
	})
}

// The SystemConfiguration is large, and all nodes read it. It is read from the server's cache, and
// only what the node needs is kept.
func TestSystemConfigurationFromCache(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		if _, err := s.look.rabbit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.fromCache, []string{kindSystemConfig.plural}) {
			t.Errorf("read from the cache: %q", c.fromCache)
		}
		kept, _, err := s.look.system.get(t.Context(), time.Hour)
		if err != nil || kept.rabbit != rabbit || !kept.listed || !slices.Contains(kept.storage, rabbit) {
			t.Errorf("kept %+v, %v", kept, err)
		}
	})
}

// A missing SystemConfiguration is not an error of the caller.
func TestNoSystemConfiguration(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		c.refuse("get systemconfigurations", errMissing)
		_, err := s.Create(t.Context(), user(1001), usualRequest)
		if !errors.Is(err, datamovement.ErrUnavailable) || !strings.Contains(err.Error(), "the system configuration 'default' does not exist") {
			t.Error(err)
		}
		c.refuse("get systemconfigurations", nil)
		created(t, s)
	})
}

// A name that is missing from a cached list is looked up again, but not each time.
func TestNewNamesAreFound(t *testing.T) {
	for name, x := range map[string]struct {
		list   string
		change func(*datamovement.Request)
		appear func(*cluster)
		kind   error
	}{
		"profile": {"list profiles", func(r *datamovement.Request) { r.Profile = "fast" },
			func(c *cluster) { c.profiles = append(c.profiles, profile("fast", false)) }, datamovement.ErrFailed},
		"default profile": {"list profiles", func(*datamovement.Request) {},
			func(c *cluster) { c.profiles = c.profiles[:1] }, datamovement.ErrFailed},
		"file system": {"list lustrefilesystems", func(r *datamovement.Request) { r.Destination = "/lus/new/x" },
			func(c *cluster) { c.systems = append(c.systems, "/lus/new") }, datamovement.ErrFailed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
				if name == "default profile" {
					c.profiles = append(c.profiles, profile("second", true))
				} else {
					created(t, s)
				}
				r := usualRequest
				x.change(&r)
				listed := func() (n int) {
					for _, line := range c.requests() {
						if line == x.list {
							n++
						}
					}
					return n
				}
				wait.Advance(refreshAfter)
				listed()
				for range 10 {
					if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, x.kind) {
						t.Fatal(err)
					}
				}
				if n := listed(); n != 1 {
					t.Errorf("10 wrong names made %d lists", n)
				}
				x.appear(c)
				wait.Advance(refreshAfter)
				if _, err := s.Create(t.Context(), user(1001), r); err != nil {
					t.Error(err)
				}
				if n := listed(); n != 1 {
					t.Errorf("%d lists for the new name", n)
				}
			})
		})
	}
}
