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
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var keyBehaviours = []behaviour{
	{"a repeated request creates nothing", "9.31", both, repeatedRequest},
	{"a key belongs to its movement until the movement is deleted", "9.31 9.13", both, keyAfterDeletion},
	{"the same key requires the same request", "9.31", one, keyOfOtherRequest},
	{"nothing is created for a disconnected caller", "9.31", both, callerGone},
}

func codeOf(err error) codes.Code { return status.Code(err) }

// keyMetadata is the metadata key for the request key in version 1.
const keyMetadata = "nnf-dm-request-key"

// keyed creates a movement with a key.
func (s *env) keyed(c pb.DataMoverClient, key string, changes ...func(*createRequest)) *pb.DataMovementCreateResponse {
	s.t.Helper()
	r, err := c.Create(metadata.AppendToOutgoingContext(s.ctx(), keyMetadata, key), s.usualRequest(changes...))
	s.Must(err)
	return r
}

// A movement is cancelled before its start, and its key is used again: all responses and
// effects concern the new movement.
func keyAfterDeletion(s *env) {
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
		s.keyRefused("has ended with status", result, uid, "delete it to copy again")
	}
	// Its end does not affect the next movement, which has the same name.
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
	s.Apply(fixture.MovementProfile(s.job, false))
	uid := s.keyed(s.me, "one").Uid
	for field, change := range map[string]func(*createRequest){
		"source":        func(w *createRequest) { w.Source += "x" },
		"destination":   func(w *createRequest) { w.Destination += "x" },
		"dryrun":        func(w *createRequest) { w.Dryrun = !w.Dryrun },
		"dcpOptions":    func(w *createRequest) { w.DcpOptions = "--preserve" },
		"mpirunOptions": func(w *createRequest) { w.MpirunOptions = "-np 2" },
		"profile":       func(w *createRequest) { w.Profile = s.job },
		"slots":         func(w *createRequest) { w.Slots = 7 },
		"maxSlots":      func(w *createRequest) { w.MaxSlots = 9 },
		"logStdout":     func(w *createRequest) { w.LogStdout = !w.LogStdout },
		"storeStdout":   func(w *createRequest) { w.StoreStdout = !w.StoreStdout },
	} {
		r := s.keyed(s.me, "one", change)
		if r.Status != createInvalid || !strings.HasSuffix(r.Message, uid+"\" has this key and a different "+field+": use another key") {
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
	// The response was lost because the daemon was killed.
	s.Stop(s.d)
	s.start()
	s.answered("after a restart", keyed(s.me, "one"), nil, &pb.DataMovementCreateResponse{Uid: first.Uid})
	// List returns the lost uids.
	if r, err := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()}); err != nil || len(r.Uids) != 2 {
		s.t.Errorf("list: %v, %v", r, err)
	}
}

// The API server is slow, and the caller disconnects.
func callerGone(s *env) {
	s.config = uncached
	s.usual()
	s.create()
	s.Proxy.ClearRequests()
	s.Proxy.Set(lab.Rule{Class: lab.ClassGet, Delay: 2 * time.Second})
	ctx, cancel := context.WithCancel(s.ctx())
	gone := make(chan error, 1)
	go func() {
		_, err := s.me.Create(ctx, s.usualRequest())
		gone <- err
	}()
	_, err := s.Proxy.WaitRequest(s.ctx(), func(r *lab.Request) bool { return r.Class == lab.ClassGet })
	s.Must(err)
	cancel()
	s.code("the caller goes", <-gone, codes.Canceled)
	s.Proxy.Clear()
	uid := s.create() // any late creation would happen before this one ends
	if n := s.Proxy.Count(lab.ClassCreate); n != 1 || uid == "" {
		s.t.Errorf("%d objects were created, want that of the second caller", n)
	}
}

func deadline(s *env, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.ctx(), d)
	s.t.Cleanup(cancel)
	return ctx
}
