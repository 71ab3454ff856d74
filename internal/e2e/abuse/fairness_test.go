package abuse

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// TestUnreadAnswers: unread responses count towards the memory limit of a user, on one
// connection or many, read slowly or not at all.
func TestUnreadAnswers(t *testing.T) {
	s := newEnv(t, collect)
	uid := s.alice.create(s.hers.Request("/out/", "/alice/"))
	s.Runs(uid)
	const many = 300 // some 8 KB each
	// wanted is a fifth of the memory of 200 complete first responses.
	const wanted = 96 << 20
	watch := s.followed(t, s.his, many)
	list, err := proto.Marshal(&pb.DataMovementListRequest{Workflow: s.his.Ref()})
	if err != nil {
		t.Fatal(err)
	}
	s.alice.poll(t, uid, time.Second)
	before := s.usage(t)
	for _, flood := range []struct {
		name  string
		order order
	}{
		{"200 watches", order{N: 200, Method: watchMethod, Body: watch}},
		{"1000 watches", order{N: 1000, Method: watchMethod, Body: watch}},
		{"slow readers", order{N: 200, Method: watchMethod, Body: watch, Slow: true}},
		{"lists", order{N: 2000, Method: listMethod, Body: list}},
	} {
		t.Run(strings.ReplaceAll(flood.name, " ", "-"), func(t *testing.T) {
			highest := s.highest(t)
			poll := s.alice.start(order{Do: "poll", UID: uid, Limit: 6 * time.Second})
			flood.order.Do, flood.order.Limit = "unread", 5*time.Second
			r := s.bob.must(flood.order)
			if r.Counts["sent"] == 0 {
				t.Errorf("%v", r.Counts)
			}
			s.judge(t, "meanwhile", poll())
			s.judge(t, "while answers wait", s.alice.poll(t, uid, 2*time.Second))
			if flood.order.Method == watchMethod && !flood.order.Slow {
				// A client that reads gets the reason of the refusal.
				r := s.bob.wire(watchMethod, watch, "")
				if a := (answer{result: r}); a.code(t) != codes.ResourceExhausted {
					t.Errorf("another call: %v", a.code(t))
				}
			}
			s.bob.must(order{Do: "drop"})
			if m := highest(); m > wanted {
				t.Errorf("the daemon took %.1f MB, at most %.1f are allowed", float64(m)/1e6, float64(wanted)/1e6)
			}
		})
	}
	s.settles(t, before)
	s.Stop(s.daemon)
}

// TestReaders: clients that read get all statuses, many concurrently, whatever another
// process of the same user has done before.
func TestReaders(t *testing.T) {
	s := newEnv(t, collect)
	const many, readers = 150, 60
	s.followed(t, s.his, many)
	var all sync.WaitGroup
	for range readers {
		client := pb2.NewDataMoverClient(s.clientAs(t, bob))
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stream, err := client.Watch(ctx, &pb2.WatchRequest{Workflow: second(s.his.Ref())})
			if err != nil {
				t.Error(err)
				return
			}
			var uids []string
			for len(uids) < many {
				r, err := stream.Recv()
				if err != nil {
					t.Errorf("after %d statuses: %v", len(uids), err)
					return
				}
				if n := proto.Size(r); n > 64<<10 {
					t.Errorf("a message of %d bytes", n)
				}
				for _, m := range r.Movements {
					uids = append(uids, m.Uid)
				}
			}
			if !slices.IsSorted(uids) || len(slices.Compact(uids)) != many {
				t.Errorf("%d statuses, sorted %v", len(uids), slices.IsSorted(uids))
			}
		})
	}
	all.Wait()
	s.Stop(s.daemon)
}

// TestIdentityFloods: many users together are limited as well, in memory and in requests to
// the API server.
func TestIdentityFloods(t *testing.T) {
	s := newEnv(t, collect)
	uid := s.alice.create(s.hers.Request("/out/", "/alice/"))
	s.Runs(uid)
	s.alice.poll(t, uid, time.Second)
	t.Run("memory", func(t *testing.T) {
		const users = 24 // 15 MB each would be 360 MB
		const wanted = 160 << 20
		highest := s.highest(t)
		poll := s.alice.start(order{Do: "poll", UID: uid, Limit: 5 * time.Second})
		var conns []net.Conn
		for i := range users {
			c, err := dialAs(s.Socket, crowd+i)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			defer c.Close()
		}
		var all sync.WaitGroup
		for _, c := range conns {
			all.Go(func() {
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				go ended(c, 10*time.Second)
				_, _ = c.Write(hello())
				for i := range uint32(perConnection) {
					if _, err := c.Write(append(headers(2*i+1, createMethod), message(2*i+1, 200<<10, 60<<10)...)); err != nil {
						return // disconnected, as expected
					}
				}
			})
		}
		all.Wait()
		s.judge(t, "meanwhile", poll())
		if m := highest(); m > wanted {
			t.Errorf("the daemon took %.1f MB, at most %.1f are allowed", float64(m)/1e6, float64(wanted)/1e6)
		}
	})
	t.Run("requests", func(t *testing.T) {
		const users = 24
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var all sync.WaitGroup
		for i := range users {
			client := pb.NewDataMoverClient(s.clientAs(t, crowd+i))
			for j := range 16 {
				all.Go(func() {
					for k := 0; ctx.Err() == nil; k++ {
						_, _ = client.Status(ctx, &pb.DataMovementStatusRequest{Uid: fmt.Sprintf("nnf-dm-node-%d-%d-%d", i, j, k)})
					}
				})
			}
		}
		wait.Pass(t, 4*time.Second, "the time in which the burst is used up")
		// Each of the other users may have one request before hers: 24/50 s.
		s.lists(t, 4, 0, 1500*time.Millisecond)
		cancel()
		all.Wait()
	})
	s.Stop(s.daemon)
}

// lists makes alice call List, which needs the API server, n times, and fails the test if one
// call takes longer than most.
func (s *env) lists(t *testing.T, n int, apart, most time.Duration) {
	t.Helper()
	var longest time.Duration
	for range n {
		start := time.Now()
		if _, err := s.alice.v1().List(t.Context(), &pb.DataMovementListRequest{Workflow: s.hers.Ref()}); err != nil {
			t.Errorf("alice's List: %v", err)
		}
		longest = max(longest, time.Since(start))
		wait.Pass(t, apart, "the time between calls")
	}
	t.Logf("alice's List: the longest took %v", longest)
	if longest > most {
		t.Errorf("one of alice's Lists took %v, at most %v are allowed", longest, most)
	}
}

// TestLogFlood: refusals of one user do not fill the log, and do not hide those of other
// users.
func TestLogFlood(t *testing.T) {
	s := newEnv(t, "")
	before := len(s.daemon.Log())
	start := time.Now()
	r := s.bob.must(order{Do: "insist", Method: statusMethod, Body: statusBody("no name!", 0), Limit: 3 * time.Second})
	made := r.Counts["OK"] + r.Counts["ResourceExhausted"]
	took := time.Since(start)
	if made < 1000 {
		t.Fatalf("%v is not a flood", r.Counts)
	}
	if _, err := s.alice.v1().Status(t.Context(), &pb.DataMovementStatusRequest{Uid: "hers!"}); err != nil {
		t.Fatal(err)
	}
	logged, hers, suppressed := 0, 0, 0
	count := func() {
		logged, hers, suppressed = 0, 0, 0
		for _, l := range s.daemon.Log()[before:] {
			n, _ := l.Fields["count"].(float64)
			switch {
			case l.Fields["event"] == "dm-suppressed" && l.Fields["uid"] == float64(bob):
				suppressed += int(n)
			case l.Fields["event"] == "dm-refused" && l.Fields["uid"] == float64(alice):
				hers++
			case l.Fields["event"] == "dm-refused":
				logged++
			}
		}
	}
	wait.Within(t, 15*time.Second, "a record or a count of every refusal", func() bool { count(); return logged+suppressed >= made && hers > 0 })
	if bound := 100 + int(5*took.Seconds()) + 5; logged > bound {
		t.Errorf("%d records of %d refusals in %v, at most %d are allowed", logged, made, took, bound)
	}
	if hers != 1 || logged+suppressed != made {
		t.Errorf("%d refusals: %d records, %d reported as suppressed; %d of alice", made, logged, suppressed, hers)
	}
	t.Logf("%d refusals in %v: %d records", made, took, logged)
	s.Stop(s.daemon)
}

// TestRequestBudget: the requests of one user leave a part of the request rate to the other
// users.
func TestRequestBudget(t *testing.T) {
	const qps, burst = 20, 40
	s := newEnv(t, fmt.Sprintf("[kubernetes]\nqps = %d\nburst = %d\n", qps, burst))
	hers := s.alice.create(s.hers.Request("/out/", "/alice/"))
	s.Runs(hers)
	requests := func(of string) (n int) {
		for _, r := range s.Proxy.Requests() {
			if strings.Contains(r.Path, of) {
				n++
			}
		}
		return n
	}
	t.Run("guesses", func(t *testing.T) {
		wait.Pass(t, burst*time.Second/qps, "the time until alice's create no longer counts")
		start := time.Now()
		flood := s.bob.start(order{Do: "guess", N: 2000, Limit: 6 * time.Second})
		wait.Pass(t, 2*time.Second, "the time in which the burst is used up")
		// 2.5 per second: the remaining rate. In one queue with bob's 32 guesses, each would take 1.6 s.
		s.lists(t, 8, 400*time.Millisecond, 1200*time.Millisecond)
		flood()
		took := time.Since(start)
		n, bound := requests("nnf-dm-node-0"), int(0.8*(burst+qps*took.Seconds()))+16
		t.Logf("%d guesses went to the API server in %v, at most %d are allowed", n, took, bound)
		if n > bound || n < bound/2 {
			t.Errorf("%d guesses went to the API server in %v, want about %d", n, took, bound)
		}
	})
	t.Run("the same name repeatedly", func(t *testing.T) {
		for what, uid := range map[string]string{"foreign": hers, "missing": missingName(hers)} {
			before := requests(uid)
			start := time.Now()
			r := s.bob.must(order{Do: "insist", Method: statusMethod, Body: statusBody(uid, 0), Limit: 3 * time.Second})
			took := time.Since(start)
			// 32 concurrent calls may be sent before the first result is cached.
			if n, bound := requests(uid)-before, 32*(int(took.Seconds())/2+2); n > bound || r.Counts["OK"] < 10*bound {
				t.Errorf("%s: %v caused %d requests, want at most %d", what, r.Counts, n, bound)
			}
		}
	})
	s.Stop(s.daemon)
}

// TestConnectionFloods: users who together take all connections do not lock out other users.
func TestConnectionFloods(t *testing.T) {
	s := newEnv(t, collect)
	uid := s.alice.create(s.hers.Request("/out/", "/alice/"))
	s.Runs(uid)
	const users, each = 4, 1024
	wait := s.alice.start(order{Method: statusMethod, Body: statusBody(uid, 20), Limit: callLimit})
	highest := s.highest(t)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for i := range users {
		for range each {
			c, err := dialAs(s.Socket, crowd+i)
			if err != nil {
				continue // rejected connections may be closed before connect returns
			}
			held = append(held, c)
			_, _ = c.Write(hello())
		}
	}
	for i := range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := pb.NewDataMoverClient(s.clientAs(t, crowd+100+i)).Version(ctx, nil)
		cancel()
		if err != nil {
			t.Errorf("a new user when all connections are taken: %v", status.Convert(err))
		}
	}
	// Users with several new connections get slots of the other users.
	for range 200 {
		c, err := dialAs(s.Socket, crowd+200)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		_, _ = c.Write(hello())
	}
	open := 0
	for _, c := range held[len(held)-200:] {
		if isOpen(c) {
			open++
		}
	}
	if open != 200 {
		t.Errorf("%d of 200 connections of another user remain", open)
	}
	s.Ends(uid, "Success")
	var st pb.DataMovementStatusResponse
	if err := proto.Unmarshal(wait().Body, &st); err != nil || st.State != pb.DataMovementStatusResponse_COMPLETED {
		t.Errorf("alice's pending wait: %v %v", &st, err)
	}
	if m := highest(); m > 200<<20 {
		t.Errorf("the daemon took %.1f MB", float64(m)/1e6)
	}
	records := 0
	for _, l := range s.daemon.Log() {
		if l.Fields["msg"] == "connection closed to free a slot for another user" {
			records++
		}
	}
	t.Logf("%d records of closed connections", records)
	s.Stop(s.daemon)
}
