package datamovement

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// StatusError returns err as a gRPC error of either version: its code, the text
// for the caller and a google.rpc.ErrorInfo. A nil err gives nil.
func StatusError(err error) error {
	f := Explain(err)
	if f == nil {
		return nil
	}
	reason, metadata := f.Info()
	s := status.New(codes.Code(CodeOf(err)), f.Error())
	// It fails for details that cannot be encoded; then code and text must do.
	if with, err := s.WithDetails(&errdetails.ErrorInfo{Reason: string(reason), Domain: ErrorDomain, Metadata: metadata}); err == nil {
		s = with
	}
	return s.Err()
}

// Problem returns err as version 2 reports it of one pair of a batch. A nil err
// gives nil.
func Problem(err error) *v2.Problem {
	f := Explain(err)
	if f == nil {
		return nil
	}
	reason, metadata := f.Info()
	return &v2.Problem{Reason: v2.ErrorReason(v2.ErrorReason_value[string(reason)]), Message: f.Error(), Metadata: metadata}
}
