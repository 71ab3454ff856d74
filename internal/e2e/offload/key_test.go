package offload

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var keyPromises = []promise{
	{"a repeated request makes nothing new", "9.31", both, repeatedRequest},
	{"nothing is made for a caller who has gone", "9.31", both, callerGone},
}

func codeOf(err error) codes.Code { return status.Code(err) }

// keyMetadata is how a client of version 1 names a request.
const keyMetadata = "nnf-dm-request-key"

func repeatedRequest(s *scene) {
	s.usual()
	keyed := func(c pb.DataMoverClient, key string, changes ...func(*wish)) *pb.DataMovementCreateResponse {
		s.t.Helper()
		r, err := c.Create(metadata.AppendToOutgoingContext(s.ctx(), keyMetadata, key), s.wish(changes...))
		s.must(err)
		return r
	}
	first := keyed(s.me, "one")
	s.answered("again", keyed(s.me, "one"), nil, &pb.DataMovementCreateResponse{Uid: first.Uid})
	if second := keyed(s.me, "two"); second.Uid == first.Uid || second.Status != createOK {
		s.t.Errorf("another key: %v", second)
	}
	if r := keyed(s.me, "one", to(global+"/elsewhere")); r.Status != createInvalid {
		s.t.Errorf("another request with the key: %v", r)
	}
	if r := keyed(s.me, "a key; with blanks"); r.Status != createInvalid {
		s.t.Errorf("no key: %v", r)
	}
	if n := s.movements(); n != 2 {
		s.t.Errorf("%d movements, want 2", n)
	}
	// An answer that was lost, with the daemon itself.
	s.must(s.d.Term())
	if code, err := s.d.Wait(s.ctx()); code != 0 || err != nil {
		s.t.Fatal(code, err)
	}
	s.start()
	s.answered("after a restart", keyed(s.me, "one"), nil, &pb.DataMovementCreateResponse{Uid: first.Uid})
	// The client that has lost the uids finds them by List.
	if r, err := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()}); err != nil || len(r.Uids) != 2 {
		s.t.Errorf("list: %v, %v", r, err)
	}
}

// The API server is slow; the caller does not wait for it.
func callerGone(s *scene) {
	s.usual()
	s.create()
	s.proxy.ClearRequests()
	s.proxy.Set(lab.Rule{Class: lab.ClassGet, Delay: 2 * time.Second})
	ctx, cancel := context.WithCancel(s.ctx())
	gone := make(chan error, 1)
	go func() {
		_, err := s.me.Create(ctx, s.wish())
		gone <- err
	}()
	_, err := s.proxy.WaitRequest(s.ctx(), func(r *lab.Request) bool { return r.Class == lab.ClassGet })
	s.must(err)
	cancel()
	s.code("the caller goes", <-gone, codes.Canceled)
	s.proxy.Clear()
	uid := s.create() // what the daemon still did would be done before this one's end
	if n := s.proxy.Count(lab.ClassCreate); n != 1 || uid == "" {
		s.t.Errorf("%d objects were made, want the second caller's", n)
	}
}

func deadline(s *scene, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.ctx(), d)
	s.t.Cleanup(cancel)
	return ctx
}
