package abuse

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
)

const (
	// generous is the time limit of the victim's Status on a busy machine; make bench measures
	// the actual time.
	generous = 250 * time.Millisecond
	// lasting is how long bob's creates keep the daemon busy: they exceed the request rate for
	// that time.
	lasting = 6 * time.Second
	// most is the maximum memory of the daemon, whatever a user does. Without its limits the
	// floods take hundreds of MB.
	most = 64 << 20
	// collect makes the garbage collector run early, so that the tests measure live memory.
	collect = "[runtime]\ngomemlimit = \"40MiB\"\n"
)

// TestFloods: bob takes all resources that he can get while alice works. Her calls succeed
// without delay, and the memory of the daemon is limited.
func TestFloods(t *testing.T) {
	s := newEnv(t, collect)
	uid := s.alice.create(s.hers.Request("/out/", "/alice/"))
	s.Runs(uid)
	his := s.bob.create(s.his.Request("/out/", "/bob/"))
	s.Runs(his)
	s.alice.poll(t, uid, time.Second) // the connections of both users and the watch exist
	before := s.usage(t)
	t.Logf("before: %.1f MB, %d files, %d threads", float64(before.RSS)/1e6, before.Files, before.Threads)

	for _, flood := range []struct {
		name  string
		order order
		holds bool // the user keeps the resources
		check func(t *testing.T, r result)
	}{
		{"5000 idle connections", order{Do: "idle", N: 5000}, true, s.idleWasLimited},
		{"slow handshakes", order{Do: "slow", N: 900, Limit: 30 * time.Second}, false, func(t *testing.T, r result) {
			if len(r.Times) == 0 || r.Counts["closed"]+r.Counts["cut"] != 900 || r.Times[0] < time.Second {
				t.Errorf("%v, the first after %v", r.Counts, r.Times[0])
			}
		}},
		{"messages of 64 MiB", order{Do: "calls", N: 8, Method: createMethod, Body: make([]byte, 64<<20), Limit: callLimit}, false, only("ResourceExhausted", 8)},
		{"requests that never end", order{Do: "streams", N: 16, Limit: callLimit}, true, func(t *testing.T, r result) {
			if r.Counts["taken"] > 1 {
				t.Errorf("the daemon took %d connections with 15 MB each: %v", r.Counts["taken"], r.Counts)
			}
		}},
		{"endless waits", order{Do: "waits", N: 3000, UID: his, Limit: 3 * time.Second}, false, func(t *testing.T, r result) {
			if r.Counts["DeadlineExceeded"] == 0 || r.Counts["DeadlineExceeded"] > 1024 || r.Counts["DeadlineExceeded"]+r.Counts["ResourceExhausted"] != 3000 {
				t.Errorf("%v", r.Counts)
			}
		}},
		{"guessed names", order{Do: "guess", N: 2000, Limit: 4 * time.Second}, false, func(t *testing.T, r result) {
			if r.Counts["OK"] == 0 || r.Counts["OK"] > 1000 {
				t.Errorf("%v: all of them caused requests to the API server", r.Counts)
			}
		}},
		{"creates", order{Do: "calls", N: 1000, Method: createMethod, Body: s.createBody(t), Limit: lasting}, false, func(t *testing.T, r result) {
			if r.Counts["ResourceExhausted"] < 400 {
				t.Errorf("%v", r.Counts)
			}
		}},
		{"calls", order{Do: "calls", N: 4000, Method: versionMethod, Limit: callLimit}, false, func(t *testing.T, r result) {
			// Above the memory limit of one user, connections are closed.
			if r.Counts["OK"] == 0 || r.Counts["OK"]+r.Counts["ResourceExhausted"]+r.Counts["Unavailable"] != 4000 {
				t.Errorf("%v", r.Counts)
			}
		}},
	} {
		t.Run(strings.ReplaceAll(flood.name, " ", "-"), func(t *testing.T) {
			poll := s.alice.start(order{Do: "poll", UID: uid, Limit: 3 * time.Second})
			work := s.works(t)
			highest := s.highest(t)
			r := s.bob.must(flood.order)
			if flood.order.Limit == lasting && len(work) == 0 {
				t.Error("alice's calls took longer than bob's flood")
			}
			if err := <-work; err != nil {
				t.Error("alice's calls fail: ", err)
			}
			s.judge(t, "meanwhile", poll())
			flood.check(t, r)
			if flood.holds {
				s.judge(t, "while it is held", s.alice.poll(t, uid, 2*time.Second))
			}
			s.bob.must(order{Do: "drop"})
			if m := highest(); m > most {
				t.Errorf("the daemon took %.1f MB, at most %.1f are allowed", float64(m)/1e6, float64(most)/1e6)
			}
		})
	}
	s.settles(t, before)
	s.Stop(s.daemon)
}

// only returns a check that all calls had the same result.
func only(code string, n int) func(*testing.T, result) {
	return func(t *testing.T, r result) {
		if r.Counts[code] != n || len(r.Counts) != 1 {
			t.Errorf("%v, want %d of %s", r.Counts, n, code)
		}
	}
}

func (s *env) idleWasLimited(t *testing.T, _ result) {
	open := s.bob.must(order{Do: "open"}).Counts
	// Connections that do not get into the kernel's queue are in neither number.
	if open["open"] < 1000 || open["open"] > 1024+2 || open["open"]+open["closed"] > 5000 {
		t.Errorf("of 5000 connections: %v, want 1024 to stay", open)
	}
	// The few connections above the limit get an error with the reason.
	if _, err := s.bob.v1().List(t.Context(), &pb.DataMovementListRequest{Workflow: s.his.Ref()}); err != nil {
		t.Errorf("the earlier connection: %v", err)
	}
	r := s.bob.must(order{Do: "calls", N: 1, Method: versionMethod, Limit: 10 * time.Second})
	if r.Counts["ResourceExhausted"]+r.Counts["Unavailable"] != 1 {
		t.Errorf("another connection: %v", r.Counts)
	}
}

func (s *env) createBody(t *testing.T) []byte {
	t.Helper()
	body, err := proto.Marshal(s.his.Request("/out/", "/bob/"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// poll makes the user poll for a while and checks the result.
func (u *user) poll(t *testing.T, uid string, d time.Duration) result {
	t.Helper()
	return u.must(order{Do: "poll", UID: uid, Limit: d})
}

// judge checks that all polls of the victim succeeded in time.
func (s *env) judge(t *testing.T, when string, r result) {
	t.Helper()
	n := len(r.Times)
	if r.Counts["OK"] != n || len(r.Counts) != 1 || n < 10 {
		t.Fatalf("alice's Status: %v", r.Counts)
	}
	p50, p99 := r.Times[n/2], r.Times[n*99/100]
	t.Logf("alice's Status %s: %d calls, p50 %v, p99 %v, longest %v (target of p99: 5ms)", when, n, p50, p99, r.Times[n-1])
	// A flood that delays alice delays most calls. On a busy machine, single ones take seconds.
	if p50 > generous || p99 > 20*generous {
		t.Errorf("p50 of alice's Status %s is %v, p99 %v", when, p50, p99)
	}
}

// works makes alice copy, list, cancel and delete concurrently. The channel returns the
// result.
func (s *env) works(t *testing.T) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		done <- s.work(ctx)
	}()
	return done
}
