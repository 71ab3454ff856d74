package server

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// KeyMetadata is the gRPC metadata key with which clients of version 1 can send a
// request key: a repeated request with the same key creates no second movement.
const KeyMetadata = "nnf-dm-request-key"

// version1 serves version 1 of the protocol: application errors are in the response,
// all other errors are gRPC errors.
type version1 struct {
	v1.UnimplementedDataMoverServer
	s *Service
}

func (version1) Version(context.Context, *emptypb.Empty) (*v1.DataMovementVersionResponse, error) {
	return &v1.DataMovementVersionResponse{Version: version.Version, ApiVersions: []string{v1.APIVersion}}, nil
}

func (v version1) Create(ctx context.Context, r *v1.DataMovementCreateRequest) (*v1.DataMovementCreateResponse, error) {
	uid, err := v.s.Create(ctx, callerOf(ctx), requestV1(ctx, r))
	return createV1(uid, err)
}

func (v version1) Status(ctx context.Context, r *v1.DataMovementStatusRequest) (*v1.DataMovementStatusResponse, error) {
	out, err := v.s.Status(ctx, callerOf(ctx), workflowV1(r), r.GetUid(), r.GetMaxWaitTime())
	if err != nil {
		return statusV1(err)
	}
	return out, nil
}

func (v version1) Cancel(ctx context.Context, r *v1.DataMovementCancelRequest) (*v1.DataMovementCancelResponse, error) {
	return cancelV1(v.s.Cancel(ctx, callerOf(ctx), workflowV1(r), r.GetUid()))
}

func (v version1) Delete(ctx context.Context, r *v1.DataMovementDeleteRequest) (*v1.DataMovementDeleteResponse, error) {
	return deleteV1(v.s.Delete(ctx, callerOf(ctx), workflowV1(r), r.GetUid()))
}

// List returns all errors as gRPC errors, because its response has no field for them.
func (v version1) List(ctx context.Context, r *v1.DataMovementListRequest) (*v1.DataMovementListResponse, error) {
	uids, err := v.s.List(ctx, callerOf(ctx), workflowV1(r))
	if err != nil {
		return nil, errorV1(err)
	}
	return &v1.DataMovementListResponse{Uids: uids}, nil
}

// workflowV1 returns the workflow in a message. Early clients send none.
func workflowV1(r interface {
	GetWorkflow() *v1.DataMovementWorkflow
}) datamovement.WorkflowRef {
	w := r.GetWorkflow()
	return datamovement.WorkflowRef{Name: w.GetName(), Namespace: w.GetNamespace()}
}

// requestV1 decodes a Create request. The key is in the metadata, because version 1
// has no field for it.
func requestV1(ctx context.Context, r *v1.DataMovementCreateRequest) datamovement.Request {
	out := datamovement.Request{
		Workflow: workflowV1(r), Source: r.GetSource(), Destination: r.GetDestination(), Dryrun: r.GetDryrun(),
		DCPOptions: r.GetDcpOptions(), MPIRunOptions: r.GetMpirunOptions(), LogStdout: r.GetLogStdout(), StoreStdout: r.GetStoreStdout(),
		Slots: r.GetSlots(), MaxSlots: r.GetMaxSlots(), Profile: r.GetProfile(),
	}
	if keys := metadata.ValueFromIncomingContext(ctx, KeyMetadata); len(keys) > 0 {
		out.Key = keys[0]
	}
	return out
}

// errorV1 returns a gRPC error with code and text.
func errorV1(err error) error {
	f := datamovement.Explain(err)
	if f == nil {
		return nil
	}
	return status.Error(f.Reason.Code(), clip(f.Error()))
}

// inResponse returns the fault to send in a response with gRPC code OK, as clients
// expect for application errors, or nil. It returns any other error as a
// gRPC error.
func inResponse(err error) (*datamovement.Fault, error) {
	f := datamovement.Explain(err)
	if f == nil {
		return nil, nil
	}
	switch f.Kind {
	case datamovement.ErrInvalid, datamovement.ErrFailed, datamovement.ErrNotFound, datamovement.ErrActive:
		if f.Reason != v2.ErrorReason_INTERNAL {
			return f, nil
		}
	}
	return nil, errorV1(f)
}

func createV1(uid string, err error) (*v1.DataMovementCreateResponse, error) {
	f, err := inResponse(err)
	switch {
	case err != nil:
		return nil, err
	case f == nil:
		return &v1.DataMovementCreateResponse{Uid: uid, Status: v1.DataMovementCreateResponse_SUCCESS}, nil
	case f.Kind == datamovement.ErrInvalid:
		return &v1.DataMovementCreateResponse{Status: v1.DataMovementCreateResponse_INVALID, Message: f.Error()}, nil
	}
	return &v1.DataMovementCreateResponse{Status: v1.DataMovementCreateResponse_FAILED, Message: f.Error()}, nil
}

// statusV1 returns the response for an error. The response for a movement that does not
// exist has no message.
func statusV1(err error) (*v1.DataMovementStatusResponse, error) {
	f, err := inResponse(err)
	if err != nil {
		return nil, err
	}
	out := &v1.DataMovementStatusResponse{State: v1.DataMovementStatusResponse_UNKNOWN_STATE, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, Message: f.Error()}
	switch f.Kind {
	case datamovement.ErrNotFound:
		out.Status, out.Message = v1.DataMovementStatusResponse_NOT_FOUND, ""
	case datamovement.ErrInvalid:
		out.Status = v1.DataMovementStatusResponse_INVALID
	}
	return out, nil
}

func cancelV1(err error) (*v1.DataMovementCancelResponse, error) {
	f, err := inResponse(err)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return &v1.DataMovementCancelResponse{Status: v1.DataMovementCancelResponse_SUCCESS}, nil
	}
	out := &v1.DataMovementCancelResponse{Status: v1.DataMovementCancelResponse_FAILED, Message: f.Error()}
	switch f.Kind {
	case datamovement.ErrInvalid:
		out.Status = v1.DataMovementCancelResponse_INVALID
	case datamovement.ErrNotFound:
		out.Status = v1.DataMovementCancelResponse_NOT_FOUND
	}
	return out, nil
}

func deleteV1(err error) (*v1.DataMovementDeleteResponse, error) {
	f, err := inResponse(err)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return &v1.DataMovementDeleteResponse{Status: v1.DataMovementDeleteResponse_SUCCESS}, nil
	}
	out := &v1.DataMovementDeleteResponse{Status: v1.DataMovementDeleteResponse_UNKNOWN, Message: f.Error()}
	switch f.Kind {
	case datamovement.ErrInvalid:
		out.Status = v1.DataMovementDeleteResponse_INVALID
	case datamovement.ErrNotFound:
		out.Status = v1.DataMovementDeleteResponse_NOT_FOUND
	case datamovement.ErrActive:
		out.Status = v1.DataMovementDeleteResponse_ACTIVE
	}
	return out, nil
}

// Status returns the status of a movement. If wait is not 0, it returns when the
// movement has ended, or after wait seconds. If wait is negative, it waits as long as
// the daemon allows. It stops waiting if ctx is cancelled.
func (s *Service) Status(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, uid string, wait int64) (*v1.DataMovementStatusResponse, error) {
	if err := s.checkNames(c, w, uid); err != nil {
		return nil, err
	}
	if t, ok := s.tombstone(c, w, uid); ok {
		return datamovement.CancelledV1(t.at), nil
	}
	f, err := s.place(ctx, c, uid)
	if err != nil {
		return nil, err
	}
	defer f.follow()()
	dm, err := s.current(ctx, c, w, f, uid)
	if t, ok := s.tombstoneSince(c, w, uid, err); ok {
		return datamovement.CancelledV1(t.at), nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.allowed(c, dm, w); err != nil {
		return nil, err
	}
	s.endCancel(ctx, c, f, dm)
	if t, ok := s.tombstone(c, w, uid); ok {
		return datamovement.CancelledV1(t.at), nil
	}
	if wait != 0 && !datamovement.Completed(dm) {
		release, err := s.waiter(c, uid)
		if err != nil {
			return nil, err
		}
		defer release()
		var t tombstone
		if dm, t, err = s.await(ctx, c, w, f, uid, s.longest(wait)); err != nil {
			return nil, err
		}
		if dm == nil {
			return datamovement.CancelledV1(t.at), nil
		}
	}
	return datamovement.StatusV1(dm), nil
}

// longest returns the duration of a wait in seconds, limited by MaxWait; a negative
// wait means MaxWait.
func (s *Service) longest(wait int64) time.Duration {
	most := s.settings.Load().MaxWait
	if wait < 0 || wait > math.MaxInt64/int64(time.Second) {
		return most
	}
	return min(time.Duration(wait)*time.Second, most)
}
