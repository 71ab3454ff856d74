package server

import (
	"context"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// KeyMetadata is the metadata by which a version 1 client may give a request a
// key of its own: repeated with the same key, it makes no second movement.
const KeyMetadata = "nnf-dm-request-key"

// version1 speaks version 1 of the protocol (contract nnf-dm.md 3, 4): what the
// application finds is said in the response, everything else is a gRPC error.
type version1 struct {
	pb.UnimplementedDataMoverServer
	s *Service
}

func (version1) Version(context.Context, *emptypb.Empty) (*pb.DataMovementVersionResponse, error) {
	return &pb.DataMovementVersionResponse{Version: version.Version, ApiVersions: []string{pb.APIVersion}}, nil
}

// answered passes on what belongs into the response, and turns the rest into a
// gRPC error.
func answered(err error) error {
	if datamovement.InResponse(err) {
		return nil
	}
	return codedError(err)
}

func (v version1) Create(ctx context.Context, r *pb.DataMovementCreateRequest) (*pb.DataMovementCreateResponse, error) {
	uid, err := v.s.Create(ctx, callOf(ctx), datamovement.RequestV1(r, keyOf(ctx)))
	if err := answered(err); err != nil {
		return nil, err
	}
	st, text := datamovement.CreateAnswer(err)
	return &pb.DataMovementCreateResponse{Uid: uid, Status: pb.DataMovementCreateResponse_Status(st), Message: text}, nil
}

func keyOf(ctx context.Context) string {
	if keys := metadata.ValueFromIncomingContext(ctx, KeyMetadata); len(keys) > 0 {
		return keys[0]
	}
	return ""
}

func (v version1) Status(ctx context.Context, r *pb.DataMovementStatusRequest) (*pb.DataMovementStatusResponse, error) {
	a, err := v.s.Status(ctx, callOf(ctx), datamovement.WorkflowV1(r.GetWorkflow()), r.GetUid(), r.GetMaxWaitTime())
	if err := answered(err); err != nil {
		return nil, err
	}
	if err != nil {
		a = datamovement.AnswerError(err)
	}
	return a.V1(), nil
}

func (v version1) Cancel(ctx context.Context, r *pb.DataMovementCancelRequest) (*pb.DataMovementCancelResponse, error) {
	err := v.s.Cancel(ctx, callOf(ctx), datamovement.WorkflowV1(r.GetWorkflow()), r.GetUid())
	if err := answered(err); err != nil {
		return nil, err
	}
	st, text := datamovement.CancelAnswer(err)
	return &pb.DataMovementCancelResponse{Status: pb.DataMovementCancelResponse_Status(st), Message: text}, nil
}

func (v version1) Delete(ctx context.Context, r *pb.DataMovementDeleteRequest) (*pb.DataMovementDeleteResponse, error) {
	err := v.s.Delete(ctx, callOf(ctx), datamovement.WorkflowV1(r.GetWorkflow()), r.GetUid())
	if err := answered(err); err != nil {
		return nil, err
	}
	st, text := datamovement.DeleteAnswer(err)
	return &pb.DataMovementDeleteResponse{Status: pb.DataMovementDeleteResponse_Status(st), Message: text}, nil
}

// List has no field for what is wrong, so every error is a gRPC one.
func (v version1) List(ctx context.Context, r *pb.DataMovementListRequest) (*pb.DataMovementListResponse, error) {
	uids, err := v.s.List(ctx, callOf(ctx), datamovement.WorkflowV1(r.GetWorkflow()))
	if err != nil {
		return nil, codedError(err)
	}
	return &pb.DataMovementListResponse{Uids: uids}, nil
}
