package offload

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

var emptyPromises = []promise{
	{"empty requests are invalid and no crash", "9.4 8/client-py", one, emptyRequests},
}

// The Python client names no workflow. Nobody brings the daemon down by leaving
// something out.
func emptyRequests(s *env) {
	s.usual()
	for _, w := range []*pb.DataMovementWorkflow{nil, {}} {
		c, err := s.me.Create(s.ctx(), &wish{Workflow: w})
		if err != nil || c.Status != createInvalid || c.Uid != "" || c.Message == "" {
			s.t.Errorf("create: %v, %v", c, err)
		}
		c, err = s.me.Create(s.ctx(), s.wish(func(x *wish) { x.Workflow = w }))
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
		c, err := s.me.Create(s.ctx(), s.wish(func(x *wish) { x.Workflow = half }))
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
