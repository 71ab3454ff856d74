package offload

import (
	"context"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

var batchBehaviours = []behaviour{
	{"a batch from its creation to its end", "v2/CreateBatch v2/Watch v2/Wait", both, batchLifecycle},
	{"a repeated batch", "v2/CreateBatch 9.31", both, batchAgain},
	{"an invalid batch", "v2/CreateBatch v2/errors", both, badBatches},
	{"a watch follows to the end", "v2/Watch", both, watchFollows},
	{"a watch without uids", "v2/Watch", one, watchAll},
	{"uids of one version are uids of the other", "v2/Wait", both, oneAndTwo},
}

// batch returns a request to copy the named files.
func (s *env) batch(names ...string) *pb2.CreateBatchRequest {
	b := &pb2.CreateBatchRequest{Workflow: s.named2()}
	for _, n := range names {
		b.Pairs = append(b.Pairs, &pb2.CopyPair{Source: s.path + "/" + n, Destination: global + "/" + n})
	}
	return b
}

func (s *env) batched(b *pb2.CreateBatchRequest) (handle string, uids []string) {
	s.t.Helper()
	r, err := s.me2.CreateBatch(s.ctx(), b)
	if err != nil || r.Uid == "" || len(r.Results) != len(b.Pairs) {
		s.t.Fatalf("batch: %v, %v", r, err)
	}
	for _, p := range r.Results {
		if p.Error != nil || p.Uid == "" {
			s.t.Fatalf("batch: %v", r)
		}
		uids = append(uids, p.Uid)
	}
	return r.Uid, uids
}

func batchLifecycle(s *env) {
	s.usual()
	b := s.batch("a", "b", "c", "d", "e")
	b.Options = &pb2.CopyOptions{DcpOptions: "-v", StoreStdout: true}
	b.Pairs[1].Destination, b.Pairs[3].Source = "/nowhere", s.path+"/../x" // these do not affect the others
	r, err := s.me2.CreateBatch(s.ctx(), b)
	if err != nil || len(r.Results) != 5 || r.Uid == "" {
		s.t.Fatalf("%v, %v", r, err)
	}
	if e := r.Results[1].Error; e.GetReason() != pb2.ErrorReason_DESTINATION_NOT_FOUND || r.Results[1].Uid != "" {
		s.t.Errorf("no such destination: %v", r.Results[1])
	}
	if e := r.Results[3].Error; e.GetReason() != pb2.ErrorReason_INVALID_FIELD || e.GetMetadata()["field"] != "source" {
		s.t.Errorf("bad source: %v", r.Results[3])
	}
	runs, waits, ends := r.Results[0].Uid, r.Results[2].Uid, r.Results[4].Uid
	for _, uid := range []string{runs, waits, ends} {
		o := s.Movement(uid)
		s.same("batch label", o.String("metadata", "labels", api.LabelBatch), r.Uid)
		s.same("options", o.String("spec", "userConfig", "dcpOptions"), "-v")
		if v := o.At("spec", "userConfig", "slots"); v != nil {
			s.t.Errorf("slots %v, want none", v)
		}
	}
	s.takes(runs)
	s.SetMovement(runs, running(nil))
	s.SetMovement(ends, finished("Success", nil))
	for _, c := range []*pb2.CancelRequest{{Workflow: s.named2(), Uids: []string{r.Uid}}} {
		got, err := s.me2.Cancel(s.ctx(), c)
		want := []string{runs, waits}
		slices.Sort(want)
		if err != nil || !slices.Equal(got.GetUids(), want) {
			s.t.Errorf("cancel: %v, %v, want %v", got, err, want)
		}
	}
	done := make(chan *pb2.WaitResponse, 1)
	ctx := s.ctx()
	go func() {
		w, err := s.me2.Wait(ctx, &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{r.Uid}})
		if err != nil {
			s.t.Error("wait: ", err)
		}
		done <- w
	}()
	_, err = s.me2.Delete(s.ctx(), &pb2.DeleteRequest{Workflow: s.named2(), Uids: []string{r.Uid}})
	s.code("delete while one runs", err, codes.FailedPrecondition, pb2.ErrorReason_MOVEMENT_ACTIVE)
	s.SetMovement(runs, finished("Cancelled", nil))
	got := map[string]pb2.MovementResult{}
	for _, m := range (<-done).GetMovements() {
		if m.State != completed2 || m.BatchUid != r.Uid {
			s.t.Errorf("%v", m)
		}
		got[m.Uid] = m.Result
	}
	if len(got) != 3 || got[runs] != cancelled2 || got[waits] != cancelled2 || got[ends] != success2 {
		s.t.Errorf("results %v", got)
	}
	s.finalizers(runs)
	if d, err := s.me2.Delete(s.ctx(), &pb2.DeleteRequest{Workflow: s.named2(), Uids: []string{r.Uid}}); err != nil || len(d.GetUids()) != 3 {
		s.t.Errorf("delete: %v, %v", d, err)
	}
	_, err = s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{r.Uid}})
	s.code("nothing is left", err, codes.NotFound, pb2.ErrorReason_MOVEMENT_NOT_FOUND)
}

func batchAgain(s *env) {
	s.usual()
	b := s.batch("a", "b", "c")
	b.RequestKey = "mine"
	handle, uids := s.batched(b)
	again, same := s.batched(b)
	if again != handle || !slices.Equal(same, uids) || s.Movements(api.LabelOwnerName, s.job) != 3 {
		s.t.Errorf("%s %v, then %s %v; %d movements", handle, uids, again, same, s.Movements(api.LabelOwnerName, s.job))
	}
	longer := s.batch("a", "b", "c", "d")
	longer.RequestKey = "mine"
	if _, more := s.batched(longer); !slices.Equal(more[:3], uids) || s.Movements(api.LabelOwnerName, s.job) != 4 {
		s.t.Errorf("with another pair: %v, then %v", uids, more)
	}
	b.RequestKey = ""
	if other, _ := s.batched(b); other == handle {
		s.t.Error("two batches have the same handle")
	}
}

func badBatches(s *env) {
	s.config = uncached
	s.usual()
	for name, e := range map[string]struct {
		change func(*pb2.CreateBatchRequest)
		code   codes.Code
		reason pb2.ErrorReason
	}{
		"no pairs":         {func(b *pb2.CreateBatchRequest) { b.Pairs = nil }, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD},
		"no workflow":      {func(b *pb2.CreateBatchRequest) { b.Workflow = nil }, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD},
		"missing workflow": {func(b *pb2.CreateBatchRequest) { b.Workflow.Name = "nope" }, codes.NotFound, pb2.ErrorReason_WORKFLOW_NOT_FOUND},
		"an invalid key":   {func(b *pb2.CreateBatchRequest) { b.RequestKey = "-" }, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD},
		"invalid options":  {func(b *pb2.CreateBatchRequest) { b.Options = &pb2.CopyOptions{DcpOptions: ";"} }, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD},
	} {
		b := s.batch("a", "b")
		e.change(b)
		_, err := s.me2.CreateBatch(s.ctx(), b)
		s.code(name, err, e.code, e.reason)
	}
	for reason, change := range map[pb2.ErrorReason]func(*pb2.CreateBatchRequest){
		pb2.ErrorReason_MOUNT_NOT_FOUND:   func(b *pb2.CreateBatchRequest) { b.Pairs[0].Source = "/elsewhere" },
		pb2.ErrorReason_PROFILE_NOT_FOUND: func(b *pb2.CreateBatchRequest) { b.Options = &pb2.CopyOptions{Profile: "nope"} },
	} {
		b := s.batch("a")
		change(b)
		if r, err := s.me2.CreateBatch(s.ctx(), b); err != nil || r.Uid != "" || r.Results[0].GetError().GetReason() != reason {
			s.t.Errorf("%v, %v, want %s and no handle", r, err, reason)
		}
	}
	s.workflowIs("PostRun", "Completed")
	_, err := s.me2.CreateBatch(s.ctx(), s.batch("a"))
	s.code("the job has ended", err, codes.FailedPrecondition, pb2.ErrorReason_WORKFLOW_STATE)
	for _, uids := range [][]string{nil, {""}, {"UPPER"}, {"batch-zz"}} {
		_, err := s.me2.Cancel(s.ctx(), &pb2.CancelRequest{Workflow: s.named2(), Uids: uids})
		s.code("cancel of nothing", err, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD)
		_, err = s.me2.Delete(s.ctx(), &pb2.DeleteRequest{Workflow: s.named2(), Uids: uids})
		s.code("delete of nothing", err, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD)
	}
	_, err = s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{"batch-00112233445566778899"}})
	s.code("no such batch", err, codes.NotFound, pb2.ErrorReason_MOVEMENT_NOT_FOUND)
	if n := s.Movements(api.LabelOwnerName, s.job); n != 0 {
		s.t.Errorf("%d movements were created", n)
	}
}

func watchFollows(s *env) {
	s.usual()
	handle, uids := s.batched(s.batch("a", "b"))
	stream, err := s.me2.Watch(s.ctx(), &pb2.WatchRequest{Workflow: s.named2(), Uids: []string{handle}})
	s.Must(err)
	first, err := stream.Recv()
	if err != nil || len(first.Movements) != 2 || first.Movements[0].Uid >= first.Movements[1].Uid {
		s.t.Fatalf("want all statuses first, sorted: %v, %v", first, err)
	}
	for _, change := range []struct {
		uid    string
		status fields
		state  pb2.MovementState
		result pb2.MovementResult
	}{
		{uids[0], running(nil), running2, 0},
		{uids[1], running(nil), running2, 0},
		{uids[1], running(fields{"commandStatus": fields{"progress": 10}}), running2, 0},
		{uids[0], finished("Success", nil), completed2, success2},
		{uids[1], finished("Failed", fields{"message": "no space"}), completed2, failed2},
	} {
		s.SetMovement(change.uid, change.status)
		r, err := stream.Recv()
		if err != nil || len(r.Movements) != 1 || r.Movements[0].Uid != change.uid || r.Movements[0].State != change.state || r.Movements[0].Result != change.result {
			s.t.Fatalf("%v, %v, want only %s of %s", r, err, change.state, change.uid)
		}
	}
	if r, err := stream.Recv(); err != io.EOF {
		s.t.Errorf("when all have ended: %v, %v", r, err)
	}

	// A deleted movement has ended as well.
	uid := s.create()
	stream, err = s.me2.Watch(s.ctx(), &pb2.WatchRequest{Workflow: s.named2(), Uids: []string{uid}})
	s.Must(err)
	_, err = stream.Recv()
	s.Must(err)
	s.Must(s.Cluster.Delete(s.ctx(), "NnfDataMovement", s.where(), uid))
	if r, err := stream.Recv(); err != nil || r.Movements[0].State != completed2 || r.Movements[0].Result != deleted2 {
		s.t.Errorf("deleted: %v, %v", r, err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		s.t.Errorf("then: %v", err)
	}

	// A caller can disconnect at any time.
	ctx, cancel := context.WithCancel(s.ctx())
	stream, err = s.me2.Watch(ctx, &pb2.WatchRequest{Workflow: s.named2(), Uids: []string{s.create()}})
	s.Must(err)
	_, err = stream.Recv()
	s.Must(err)
	cancel()
	_, err = stream.Recv()
	s.code("the caller goes", err, codes.Canceled)
}

func watchAll(s *env) {
	s.usual()
	stream, err := s.me2.Watch(s.ctx(), &pb2.WatchRequest{Workflow: s.named2()})
	s.Must(err)
	if r, err := stream.Recv(); err != nil || len(r.Movements) != 0 {
		s.t.Errorf("of none: %v, %v", r, err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		s.t.Errorf("of none: %v", err)
	}
	a, b := s.create(), s.create()
	s.foreign(s.where(), s.k.prefix+"far-"+s.Node, 1001, map[string]string{api.LabelInitiator: "another-node"})
	stream, err = s.me2.Watch(s.ctx(), &pb2.WatchRequest{Workflow: s.named2()})
	s.Must(err)
	r, err := stream.Recv()
	s.Must(err)
	var got []string
	for _, m := range r.Movements {
		got = append(got, m.Uid)
	}
	if want := slices.Sorted(slices.Values([]string{a, b})); !slices.Equal(got, want) {
		s.t.Errorf("%q, want %q", got, want)
	}
	_, err = s.me2.Wait(s.ctx(), &pb2.WaitRequest{})
	s.code("no workflow", err, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD)
}

func oneAndTwo(s *env) {
	s.usual()
	uid := s.create()
	handle, uids := s.batched(s.batch("a"))
	s.lists(s.me, uid, uids[0])
	s.answered("of version 2 by version 1", s.status(uids[0], 0), nil, &pb.DataMovementStatusResponse{State: pending, Status: unknownStatus})
	if m := s.status2(uid); m.BatchUid != "" || m.State != pending2 {
		s.t.Errorf("of version 1 by version 2: %v", m)
	}
	if r := s.status(handle, 0); r.Status != notFound || r.State != unknownState {
		s.t.Errorf("a handle in version 1: %v", r)
	}
	s.SetMovement(uid, finished("Success", nil))
	s.cancels(uids[0], cancelOK)
	w, err := s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{uid, handle}})
	if err != nil || len(w.Movements) != 2 {
		s.t.Errorf("wait for both: %v, %v", w, err)
	}
}

var emptyBehaviours = []behaviour{
	{"empty requests are invalid and cause no crash", "9.4 8/client-py", one, emptyRequests},
}

// The Python client sends no workflow. Missing fields must not crash the daemon.
func emptyRequests(s *env) {
	s.usual()
	for _, w := range []*pb.DataMovementWorkflow{nil, {}} {
		c, err := s.me.Create(s.ctx(), &createRequest{Workflow: w})
		if err != nil || c.Status != createInvalid || c.Uid != "" || c.Message == "" {
			s.t.Errorf("create: %v, %v", c, err)
		}
		c, err = s.me.Create(s.ctx(), s.usualRequest(func(x *createRequest) { x.Workflow = w }))
		if err != nil || c.Status != createInvalid {
			s.t.Errorf("create without a workflow: %v, %v", c, err)
		}
		st, err := s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: w})
		if err != nil || st.Status != invalid || st.State != unknownState {
			s.t.Errorf("status: %v, %v", st, err)
		}
		ca, err := s.me.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: w})
		if err != nil || ca.Status != cancelInvalid {
			s.t.Errorf("cancel: %v, %v", ca, err)
		}
		de, err := s.me.Delete(s.ctx(), &pb.DataMovementDeleteRequest{Workflow: w})
		if err != nil || de.Status != deleteInvalid {
			s.t.Errorf("delete: %v, %v", de, err)
		}
		_, err = s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: w})
		s.code("list", err, codes.InvalidArgument)
	}
	for _, half := range []*pb.DataMovementWorkflow{{Name: s.job}, {Namespace: "default"}, {Name: "../x", Namespace: "default"}, {Name: s.job, Namespace: "a/b"}} {
		c, err := s.me.Create(s.ctx(), s.usualRequest(func(x *createRequest) { x.Workflow = half }))
		if err != nil || c.Status != createInvalid {
			s.t.Errorf("workflow %v: %v, %v", half, c, err)
		}
	}
	_, err := s.me2.CreateBatch(s.ctx(), new(pb2.CreateBatchRequest))
	s.code("batch", err, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD)
	_, err = s.me2.CreateBatch(s.ctx(), &pb2.CreateBatchRequest{Workflow: s.named2(), Pairs: []*pb2.CopyPair{nil, {}}})
	s.code("batch of empty pairs", err, codes.OK)
	for name, err := range map[string]error{
		"wait":   second(s.me2.Wait(s.ctx(), new(pb2.WaitRequest))),
		"cancel": second(s.me2.Cancel(s.ctx(), new(pb2.CancelRequest))),
		"delete": second(s.me2.Delete(s.ctx(), new(pb2.DeleteRequest))),
	} {
		s.code(name, err, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD)
	}
	if _, err := s.me.Version(s.ctx(), new(emptypb.Empty)); err != nil {
		s.t.Errorf("afterwards: %v", err)
	}
}
