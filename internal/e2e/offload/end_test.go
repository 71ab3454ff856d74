package offload

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var cancelBehaviours = []behaviour{
	{"cancel patches once, and only active movements", "4.5/sets 4.5/again 4.5/missing", both, cancelOnce},
	{"a conflict is not reported to the caller", "4.5/conflict", both, cancelConflict},
	{"cancel before the start", "7/cancel-before 9.13", both, cancelBeforeStart},
	{"cancel before the start, with the rabbit's finalizer", "7/delete-before 9.13", both, cancelTaken},
}

var deleteBehaviours = []behaviour{
	{"delete only ended movements", "4.6/active 4.6/success 4.6/missing", both, deleteEnded},
	{"cancel, then delete immediately", "9.14", both, cancelThenDelete},
	{"a cancelled movement that continues is not deleted", "9.14 4.6/active", one, cancelNeverEnds},
}

var listBehaviours = []behaviour{
	{"list", "4.7 9.25", both, listOwn},
	{"list the whole workflow", "4.7 9.25", one, listWorkflow},
}

func cancelOnce(s *env) {
	s.usual()
	s.cancels(s.k.prefix+"nope-"+s.Node, cancelNotFound)
	uid := s.create()
	s.takes(uid)
	s.SetMovement(uid, running(nil))
	s.Proxy.ClearRequests()
	s.cancels(uid, cancelOK)
	if v := s.Movement(uid).At("spec", "cancel"); v != true {
		s.t.Errorf("spec.cancel is %v", v)
	}
	body := s.body(lab.ClassPatchObject)
	delete(body["metadata"].(map[string]any), "uid") // of this object, and no other with its name
	s.same("the patch", pretty(body), pretty(fields{"metadata": fields{}, "spec": fields{"cancel": true}}))
	s.cancels(uid, cancelOK)
	if n := s.Proxy.Count(lab.ClassPatchObject); n != 1 {
		s.t.Errorf("%d patches for two cancels", n)
	}
	s.SetMovement(uid, finished("Cancelled", nil))
	s.cancels(uid, cancelOK)

	ended := s.create()
	s.SetMovement(ended, finished("Success", nil))
	s.cancels(ended, cancelOK)
	if v := s.Movement(ended).At("spec", "cancel"); v == true {
		s.t.Error("an ended movement was cancelled")
	}
	r, err := s.me2.Cancel(s.ctx(), &pb2.CancelRequest{Workflow: s.named2(), Uids: []string{uid, ended}})
	if err != nil || len(r.GetUids()) != 0 {
		s.t.Errorf("version 2 cancels an ended movement: %v, %v", r, err)
	}
	s.finalizers(uid)
}

func cancelConflict(s *env) {
	s.usual()
	uid := s.create()
	s.takes(uid)
	s.SetMovement(uid, running(nil))
	// Other programs write to the object continuously.
	ctx, cancel := context.WithCancel(s.ctx())
	wrote := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			change := lab.Object{"metadata": fields{"annotations": fields{"storm": fmt.Sprint(n)}}}
			if _, err := s.Cluster.Patch(ctx, "NnfDataMovement", s.where(), uid, change); err != nil && ctx.Err() == nil {
				s.t.Error(err)
			}
		}
		wrote <- n
	}()
	for range 10 {
		s.cancels(uid, cancelOK)
		_, err := s.Cluster.Patch(s.ctx(), "NnfDataMovement", s.where(), uid, lab.Object{"spec": fields{"cancel": false}})
		s.Must(err)
	}
	cancel()
	if n := <-wrote; n < 5 {
		s.t.Errorf("only %d concurrent writes", n)
	}
	// If the server continues to return conflicts:
	s.Proxy.Set(lab.Rule{Class: lab.ClassPatchObject, Code: 409})
	r, err := s.me.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: s.named(), Uid: uid})
	if err != nil || r.Status != cancelFailed || !strings.HasPrefix(r.Message, "failed to initiate cancel on dm node: ") {
		s.t.Errorf("%v, %v", r, err)
	}
	s.Proxy.Clear()
	s.cancels(uid, cancelOK)
	s.finalizers(uid)
}

// The rabbit never ends a cancelled data movement that it has not started.
func cancelBeforeStart(s *env) {
	s.usual()
	uid := s.create()
	answer := s.waits(uid, -1)
	s.cancels(uid, cancelOK)
	if o := s.Movement(uid); o != nil {
		s.t.Errorf("the object still exists: %v", o)
	}
	for _, r := range []*pb.DataMovementStatusResponse{<-answer, s.status(uid, 0), s.status(uid, -1)} {
		if r.GetState() != completed || r.GetStatus() != cancelled || r.GetEndTime() == "" || r.GetCommandStatus() == nil {
			s.t.Errorf("%v, want COMPLETED, CANCELLED", r)
		}
	}
	if m := s.status2(uid); m.State != completed2 || m.Result != cancelled2 {
		s.t.Errorf("version 2: %v", m)
	}
	s.hidden(s.as(eve), s.named(), uid)
	s.cancels(uid, cancelOK)
	s.deletes(uid, deleteOK)
	s.deletes(uid, deleteNotFound)
	s.answered("after the delete", s.status(uid, 0), nil, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound})
}

// The same if the rabbit has set its finalizer and removes it.
func cancelTaken(s *env) {
	s.usual()
	uid := s.create()
	s.takes(uid)
	s.cancels(uid, cancelOK)
	o := s.Movement(uid)
	if o == nil || o.At("metadata", "deletionTimestamp") == nil || o.At("spec", "cancel") != true {
		s.t.Fatalf("want a cancelled and deleted object: %v", o)
	}
	if r := s.status(uid, 0); r.State != completed || r.Status != cancelled {
		s.t.Errorf("%v", r)
	}
	s.SetMovement(uid, finished("Cancelled", nil))
	s.finalizers(uid)
	s.Must(s.Cluster.WaitGone(s.ctx(), "NnfDataMovement", s.where(), uid))
	if r := s.status(uid, 0); r.State != completed || r.Status != cancelled {
		s.t.Errorf("after the removal of the object: %v", r)
	}
	s.deletes(uid, deleteOK)
}

func deleteEnded(s *env) {
	s.usual()
	s.deletes(s.k.prefix+"nope-"+s.Node, deleteNotFound)
	for _, active := range []fields{nil, {"state": "Starting"}, running(nil)} {
		uid := s.create()
		if active != nil {
			s.SetMovement(uid, active)
		}
		s.deletes(uid, deleteActive)
		if s.Movement(uid) == nil {
			s.t.Errorf("deleted although active: %v", active)
		}
		_, err := s.me2.Delete(s.ctx(), &pb2.DeleteRequest{Workflow: s.named2(), Uids: []string{uid}})
		s.code("version 2", err, codes.FailedPrecondition, pb2.ErrorReason_MOVEMENT_ACTIVE)
	}
	for _, end := range []fields{finished("Success", nil), finished("Failed", nil), finished("Cancelled", nil), {"state": "Finished", "status": "Invalid"}} {
		uid := s.create()
		s.takes(uid)
		s.SetMovement(uid, end)
		s.deletes(uid, deleteOK)
		// The object remains until the rabbit removes its finalizer.
		if o := s.Movement(uid); o == nil || o.At("metadata", "deletionTimestamp") == nil {
			s.t.Errorf("not deleted: %v", o)
		}
		s.finalizers(uid)
		s.deletes(uid, deleteNotFound)
	}
}

// cancelThenDelete does the same as AXL: the delete must succeed.
func cancelThenDelete(s *env) {
	s.usual()
	uid := s.create()
	s.takes(uid)
	s.SetMovement(uid, running(nil))
	s.cancels(uid, cancelOK)
	ctx := s.ctx()
	done := make(chan error, 1)
	go func() { // the rabbit kills the command
		_, err := s.Cluster.WaitFor(ctx, "NnfDataMovement", s.where(), uid, func(o lab.Object) bool { return o != nil && o.At("spec", "cancel") == true })
		if err == nil {
			time.Sleep(time.Second) // the command takes this time to exit, while the delete waits
			err = s.Cluster.PatchStatus(ctx, "NnfDataMovement", s.where(), uid, finished("Cancelled", nil))
		}
		done <- err
	}()
	s.deletes(uid, deleteOK)
	s.Must(<-done)
	if o := s.Movement(uid); o == nil || o.At("metadata", "deletionTimestamp") == nil {
		s.t.Errorf("not deleted: %v", o)
	}
	s.finalizers(uid)
}

func cancelNeverEnds(s *env) {
	s.usual()
	uid := s.create()
	s.SetMovement(uid, running(nil))
	s.cancels(uid, cancelOK)
	s.deletes(uid, deleteActive) // after the time limit of the daemon
	if s.Movement(uid) == nil {
		s.t.Error("a running movement was deleted")
	}
}

func listOwn(s *env) {
	s.usual()
	s.lists(s.me)
	a, b, c := s.create(), s.create(), s.create()
	s.lists(s.me, a, b, c)
	r1, err1 := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()})
	r2, err2 := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()})
	s.Must(err2)
	s.answered("twice the same order", r1, err1, r2)
	requests := s.Proxy.Requests()
	query := requests[len(requests)-1].Query // the API server selects, not the daemon
	for _, label := range []string{api.LabelInitiator + "=" + s.Node, api.LabelOwnerKind + "=Workflow", api.LabelOwnerName + "=" + s.job, api.LabelOwnerNamespace + "=default"} {
		if !strings.Contains(query, url.QueryEscape(label)) {
			s.t.Errorf("the list request has no %s: %s", label, query)
		}
	}
	s.foreign(s.where(), s.k.prefix+"far-"+s.Node, 1001, map[string]string{api.LabelInitiator: "another-node"})
	s.foreign(s.where(), s.k.prefix+"in-"+s.Node, 1001, map[string]string{api.LabelInitiator: "copy_in"})
	s.foreign(s.where(), s.k.prefix+"ns-"+s.Node, 1001, map[string]string{api.LabelOwnerNamespace: "elsewhere", api.LabelWorkflowNamespace: "elsewhere"})
	s.lists(s.me, a, b, c)
	s.lists(s.as(eve))
	s.SetMovement(b, finished("Success", nil))
	s.deletes(b, deleteOK)
	s.lists(s.me, a, c)
	r, err := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: &pb.DataMovementWorkflow{Name: "none-such", Namespace: "default"}})
	s.answered("of no workflow", r, err, new(pb.DataMovementListResponse))
	_, err = s.me.List(s.ctx(), new(pb.DataMovementListRequest))
	s.code("no workflow given", err, codes.InvalidArgument)
}

func listWorkflow(s *env) {
	s.config = "[access]\nlist_workflow = true\n"
	s.usual()
	uid, far := s.create(), s.k.prefix+"far-"+s.Node
	s.foreign(s.where(), far, 1001, map[string]string{api.LabelInitiator: "another-node"})
	s.foreign(s.where(), s.k.prefix+"in-"+s.Node, 1001, map[string]string{api.LabelInitiator: "copy_in"})
	s.foreign(s.where(), s.k.prefix+"eve-"+s.Node, 1002, nil)
	s.lists(s.me, uid, far)
	s.hidden(s.me, s.named(), far) // it is only in the list
}
