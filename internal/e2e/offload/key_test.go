package offload

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var keyPromises = []promise{
	{"a repeated request makes nothing new", "9.31", both, repeatedRequest},
	{"a key belongs to its movement until that is deleted", "9.31 9.13", both, keyOfAnother},
	{"the same key is the same request", "9.31", one, keyOfOtherRequest},
	{"nothing is made for a caller who has gone", "9.31", both, callerGone},
}

func codeOf(err error) codes.Code { return status.Code(err) }

// keyMetadata is how a client of version 1 names a request.
const keyMetadata = "nnf-dm-request-key"

// keyed creates with a key.
func (s *env) keyed(c pb.DataMoverClient, key string, changes ...func(*wish)) *pb.DataMovementCreateResponse {
	s.t.Helper()
	r, err := c.Create(metadata.AppendToOutgoingContext(s.ctx(), keyMetadata, key), s.wish(changes...))
	s.Must(err)
	return r
}

// A movement is cancelled before its start, and its key is used again: what is
// said and done is about the new one.
func keyOfAnother(s *env) {
	s.usual()
	uid := s.keyed(s.me, "one").Uid
	s.cancels(uid, cancelOK)
	s.is(uid, completed, cancelled)
	s.answered("after the cancel", s.keyed(s.me, "one"), nil, &pb.DataMovementCreateResponse{Uid: uid})
	s.is(uid, pending, unknownStatus)
	s.takes(uid)
	s.SetMovement(uid, running(nil))
	wait.Within(s.t, patience, "it runs", func() bool { return s.status(uid, 0).State == isRunning })
	s.deletes(uid, deleteActive)
	s.cancels(uid, cancelOK)
	if v := s.Movement(uid).At("spec", "cancel"); v != true {
		s.t.Errorf("the second one is not cancelled: %v", v)
	}
	s.keyRefused("is being cancelled")
	for _, result := range []string{"Cancelled", "Failed"} {
		s.SetMovement(uid, finished(result, nil))
		s.keyRefused("has ended as", result, uid, "delete that one")
	}
	// Its end is not taken for that of the next one, which has its name.
	s.finalizers(uid)
	wait.Within(s.t, patience, "its end is known", func() bool { return s.status(uid, 0).State == completed })
	s.deletes(uid, deleteOK)
	s.Must(s.Cluster.WaitGone(s.ctx(), "NnfDataMovement", s.where(), uid))
	s.answered("after the delete", s.keyed(s.me, "one"), nil, &pb.DataMovementCreateResponse{Uid: uid})
	for range 20 {
		s.is(uid, pending, unknownStatus)
	}
}

func (s *env) keyRefused(texts ...string) {
	s.t.Helper()
	r := s.keyed(s.me, "one")
	for _, text := range texts {
		if r.Status != createInvalid || !strings.Contains(r.Message, text) {
			s.t.Errorf("%v, want INVALID with %q", r, text)
		}
	}
}

func keyOfOtherRequest(s *env) {
	s.usual()
	s.Apply(world.MovementProfile(s.job, false))
	uid := s.keyed(s.me, "one").Uid
	for field, change := range map[string]func(*wish){
		"source":        func(w *wish) { w.Source += "x" },
		"destination":   func(w *wish) { w.Destination += "x" },
		"dryrun":        func(w *wish) { w.Dryrun = !w.Dryrun },
		"dcpOptions":    func(w *wish) { w.DcpOptions = "--preserve" },
		"mpirunOptions": func(w *wish) { w.MpirunOptions = "-np 2" },
		"profile":       func(w *wish) { w.Profile = s.job },
		"slots":         func(w *wish) { w.Slots = 7 },
		"maxSlots":      func(w *wish) { w.MaxSlots = 9 },
		"logStdout":     func(w *wish) { w.LogStdout = !w.LogStdout },
		"storeStdout":   func(w *wish) { w.StoreStdout = !w.StoreStdout },
	} {
		r := s.keyed(s.me, "one", change)
		if r.Status != createInvalid || !strings.HasSuffix(r.Message, uid+"\" has it, which differs in "+field+": use another key") {
			s.t.Errorf("%s: %v", field, r)
		}
	}
	s.answered("the same", s.keyed(s.me, "one"), nil, &pb.DataMovementCreateResponse{Uid: uid})
	if n := s.Movements(api.LabelOwnerName, s.job); n != 1 {
		s.t.Errorf("%d movements, want 1", n)
	}
}

func repeatedRequest(s *env) {
	s.usual()
	keyed := s.keyed
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
	if n := s.Movements(api.LabelOwnerName, s.job); n != 2 {
		s.t.Errorf("%d movements, want 2", n)
	}
	// An answer that was lost, with the daemon itself.
	s.Stop(s.d)
	s.start()
	s.answered("after a restart", keyed(s.me, "one"), nil, &pb.DataMovementCreateResponse{Uid: first.Uid})
	// The client that has lost the uids finds them by List.
	if r, err := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()}); err != nil || len(r.Uids) != 2 {
		s.t.Errorf("list: %v, %v", r, err)
	}
}

// The API server is slow; the caller does not wait for it.
func callerGone(s *env) {
	s.config = forgetful
	s.usual()
	s.create()
	s.Proxy.ClearRequests()
	s.Proxy.Set(lab.Rule{Class: lab.ClassGet, Delay: 2 * time.Second})
	ctx, cancel := context.WithCancel(s.ctx())
	gone := make(chan error, 1)
	go func() {
		_, err := s.me.Create(ctx, s.wish())
		gone <- err
	}()
	_, err := s.Proxy.WaitRequest(s.ctx(), func(r *lab.Request) bool { return r.Class == lab.ClassGet })
	s.Must(err)
	cancel()
	s.code("the caller goes", <-gone, codes.Canceled)
	s.Proxy.Clear()
	uid := s.create() // what the daemon still did would be done before this one's end
	if n := s.Proxy.Count(lab.ClassCreate); n != 1 || uid == "" {
		s.t.Errorf("%d objects were made, want the second caller's", n)
	}
}

func deadline(s *env, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.ctx(), d)
	s.t.Cleanup(cancel)
	return ctx
}
