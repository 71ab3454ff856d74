package offload

import (
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var accessBehaviours = []behaviour{
	{"another user's requests find nothing", "9.2", both, otherUser},
	{"movements of other users look like missing ones", "9.2 9.25 4.3", both, othersMovements},
	{"a request with another workflow does not match", "9.2", both, anotherWorkflow},
	{"root acts for any workflow, as its user", "9.2 9.3", both, rootActs},
	{"root without special rights", "9.2", one, rootDenied},
	{"no copies as root", "9.3", one, rootCopies},
	{"the caller must be in the workflow's group", "9.3 4.2/6", one, groupMember},
	{"only root can use reflection", "access/reflection", one, reflection},
}

func otherUser(s *env) {
	s.usual()
	uid := s.create()
	c, c2 := s.as(eve), s.as2(eve)
	r, err := c.Create(s.ctx(), s.usualRequest())
	s.answered("create", r, err, &pb.DataMovementCreateResponse{Status: createFailed, Message: s.fill(`could not find workflow "default/JOB"`)})
	st, err := c.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid})
	s.answered("status", st, err, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound})
	ca, err := c.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: s.named(), Uid: uid})
	s.answered("cancel", ca, err, &pb.DataMovementCancelResponse{Status: cancelNotFound, Message: `could not find data movement "` + uid + `"`})
	de, err := c.Delete(s.ctx(), &pb.DataMovementDeleteRequest{Workflow: s.named(), Uid: uid})
	s.answered("delete", de, err, &pb.DataMovementDeleteResponse{Status: deleteNotFound, Message: `could not find data movement "` + uid + `"`})
	s.lists(c)
	for name, err := range map[string]error{
		"batch":  second(c2.CreateBatch(s.ctx(), &pb2.CreateBatchRequest{Workflow: s.named2(), Pairs: []*pb2.CopyPair{{Source: s.path + "/a", Destination: global + "/a"}}})),
		"wait":   second(c2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{uid}})),
		"cancel": second(c2.Cancel(s.ctx(), &pb2.CancelRequest{Workflow: s.named2(), Uids: []string{uid}})),
		"delete": second(c2.Delete(s.ctx(), &pb2.DeleteRequest{Workflow: s.named2(), Uids: []string{uid}})),
	} {
		s.code(name, err, codes.NotFound, pb2.ErrorReason_WORKFLOW_NOT_FOUND, pb2.ErrorReason_MOVEMENT_NOT_FOUND)
	}
	if v := s.Movement(uid); v == nil || v.At("spec", "cancel") == true || v.At("metadata", "deletionTimestamp") != nil {
		s.t.Errorf("the movement was changed: %v", v)
	}
	if n := s.Movements(api.LabelOwnerName, s.job); n != 1 {
		s.t.Errorf("%d movements, want only alice's", n)
	}
	// One record for each refusal, with the caller, the call and the object.
	for rpc, n := range map[string]int{
		"/datamovement.DataMover/Create": 1, "/datamovement.DataMover/Status": 1, "/datamovement.DataMover/Cancel": 1, "/datamovement.DataMover/Delete": 1,
		"/datamovement.v2.DataMover/Wait": 1,
	} {
		wait.Within(s.t, patience, "records of "+rpc, func() bool { return s.records(`"uid":1002`, `"pid":`, rpc) == n })
	}
}

func second[T any](_ T, err error) error { return err }

// hidden checks that no call distinguishes a movement from a missing one.
func (s *env) hidden(c pb.DataMoverClient, w *pb.DataMovementWorkflow, uid string) {
	s.t.Helper()
	st, err := c.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: w, Uid: uid, MaxWaitTime: -1})
	s.answered("status of "+uid, st, err, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound})
	why := `could not find data movement "` + uid + `"`
	ca, err := c.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: w, Uid: uid})
	s.answered("cancel of "+uid, ca, err, &pb.DataMovementCancelResponse{Status: cancelNotFound, Message: why})
	de, err := c.Delete(s.ctx(), &pb.DataMovementDeleteRequest{Workflow: w, Uid: uid})
	s.answered("delete of "+uid, de, err, &pb.DataMovementDeleteResponse{Status: deleteNotFound, Message: why})
}

func othersMovements(s *env) {
	s.usual()
	mine := s.create()
	at, p := s.where(), s.k.prefix
	n := s.Node
	foreign := map[string]map[string]string{
		p + "copyin-" + n:  {api.LabelInitiator: "copy_in"},
		p + "copyout-" + n: {api.LabelInitiator: "copy_out"},
		p + "none-" + n:    {api.LabelInitiator: ""},
		p + "node-b-" + n:  {api.LabelInitiator: "another-node"},
		p + "kind-" + n:    {api.LabelOwnerKind: "NnfAccess"},
		p + "two-" + n:     {api.LabelWorkflowName: "another"},
		p + "unowned-" + n: {api.LabelOwnerName: "", api.LabelOwnerUID: ""},
	}
	for name, labels := range foreign {
		s.foreign(at, name, 1001, labels)
	}
	s.foreign(at, p+"of-eve-"+n, 1002, nil)
	foreign[p+"of-eve-"+n] = nil
	foreign[p+"missing-"+n] = nil
	if s.k == gfs2 { // the prefix of the name determines the namespace
		s.foreign("nnf-dm-system", "nnf-dm-node-elsewhere-"+n, 1001, nil)
		s.foreign(s.Rabbit, "nnf-dm-elsewhere-"+n, 1001, nil)
		foreign["nnf-dm-node-elsewhere-"+n], foreign["nnf-dm-elsewhere-"+n] = nil, nil
	}
	for name := range foreign {
		s.hidden(s.me, s.named(), name)
		s.hidden(s.me, nil, name)
		s.code("wait for "+name, second(s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{name}})), codes.NotFound, pb2.ErrorReason_MOVEMENT_NOT_FOUND)
	}
	r, err := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()})
	if err != nil || !slices.Contains(r.GetUids(), mine) || slices.ContainsFunc(r.GetUids(), func(u string) bool { _, f := foreign[u]; return f && !strings.Contains(u, "elsewhere") }) {
		s.t.Errorf("list: %v, %v", r, err)
	}
	// Not even root can access the movements of the workflow controller.
	s.hidden(s.as(root), s.named(), p+"copyin-"+n)
}

func anotherWorkflow(s *env) {
	s.usual()
	uid := s.create()
	for _, w := range []*pb.DataMovementWorkflow{
		{Name: "another", Namespace: "default"}, {Name: s.job, Namespace: "elsewhere"}, {Name: s.job + "x", Namespace: "default"}, {Name: s.job[:len(s.job)-1], Namespace: "default"},
	} {
		s.hidden(s.me, w, uid)
	}
	for _, w := range []*pb.DataMovementWorkflow{nil, {}, {Name: s.job}, {Namespace: "default"}, s.named()} {
		st, err := s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: w, Uid: uid})
		s.answered("its own workflow", st, err, &pb.DataMovementStatusResponse{State: pending, Status: unknownStatus})
	}
}

func rootActs(s *env) {
	s.usual()
	c := s.as(root)
	uid := s.createAs(c)
	for _, field := range []string{"userId", "groupId"} {
		if v := s.Movement(uid).At("spec", field); v != float64(1001) {
			s.t.Errorf("spec.%s is %v, want the workflow's", field, v)
		}
	}
	s.lists(c, uid)
	s.lists(s.me, uid)
	s.is(uid, pending, unknownStatus)
	r, err := c.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: s.named(), Uid: s.create()})
	if err != nil || r.Status != cancelOK {
		s.t.Errorf("cancel: %v, %v", r, err)
	}
}

func rootDenied(s *env) {
	s.config = "[access]\nroot_may_all = false\n"
	s.usual()
	uid := s.create()
	c := s.as(root)
	r, err := c.Create(s.ctx(), s.usualRequest())
	s.answered("create", r, err, &pb.DataMovementCreateResponse{Status: createFailed, Message: s.fill(`could not find workflow "default/JOB"`)})
	s.hidden(c, s.named(), uid)
	s.lists(c)
	s.reload("[access]\nroot_may_all = true\n")
	s.lists(c, uid)
}

func rootCopies(s *env) {
	s.system()
	s.workflow(func(o lab.Object) { o["spec"].(fields)["userID"], o["spec"].(fields)["groupID"] = 0, 0 })
	s.mounts()
	s.start()
	c := s.as(root)
	_, err := c.Create(s.ctx(), s.usualRequest())
	s.code("as root", err, codes.PermissionDenied)
	s.reload("[access]\nallow_root_copies = true\n")
	o := s.Movement(s.createAs(c))
	if u, g := o.At("spec", "userId"), o.At("spec", "groupId"); u != nil || g != nil {
		s.t.Errorf("userId %v, groupId %v, want none in the object", u, g)
	}
}

func groupMember(s *env) {
	s.system()
	s.workflow(func(o lab.Object) { o["spec"].(fields)["groupID"] = 3003 })
	s.mounts()
	s.start()
	_, err := s.me.Create(s.ctx(), s.usualRequest())
	s.code("no member", err, codes.PermissionDenied)
	if !strings.Contains(status.Convert(err).Message(), "group") {
		s.t.Errorf("the error has no reason: %v", err)
	}
	_, err = s.me2.CreateBatch(s.ctx(), &pb2.CreateBatchRequest{Workflow: s.named2(), Pairs: []*pb2.CopyPair{{Source: s.path + "/a", Destination: global + "/a"}}})
	s.code("no member, version 2", err, codes.PermissionDenied, pb2.ErrorReason_ACCESS_DENIED)
	for _, c := range []caller{{1001, 3003, nil}, {1001, 1001, []int{7, 3003}}, root} {
		o := s.Movement(s.createAs(s.as(c)))
		if g := o.At("spec", "groupId"); g != float64(3003) {
			s.t.Errorf("%v: groupId %v", c, g)
		}
	}
}

func reflection(s *env) {
	s.usual()
	ask := func(c caller) error {
		stream, err := reflectionpb.NewServerReflectionClient(s.connect(c)).ServerReflectionInfo(s.ctx())
		s.Must(err)
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil && err != io.EOF {
			s.t.Fatal(err)
		}
		r, err := stream.Recv()
		if err == nil && !strings.Contains(r.String(), "datamovement.v2.DataMover") {
			s.t.Errorf("services: %v", r)
		}
		return err
	}
	s.code("alice", ask(alice), codes.PermissionDenied)
	s.code("root", ask(root), codes.OK)
}
