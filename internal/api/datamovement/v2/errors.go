// Package datamovementv2 is the Copy Offload API, version 2: datamovement.proto,
// the code generated from it, and its errors as Go errors.
//
// It must not know authorisation rules, nor that Kubernetes exists. clientmountd must
// not link it.
package datamovementv2

import (
	"maps"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// ErrorDomain is the domain in google.rpc.ErrorInfo.
const ErrorDomain = "nnf-dm"

// Keys of the metadata. datamovement.proto documents the reasons that have them.
const (
	MetadataField = "field" // name of the request's field in the .proto file
	MetadataLimit = "limit" // the daemon's setting
)

// HeaderMovements is the key of a field in the header of a Watch: the number of
// movements whose statuses the stream starts with, in one or more messages. Daemons of
// earlier releases do not send it.
const HeaderMovements = "nnf-dm-movements"

// reasonCodes are the codes of the reasons, as documented in datamovement.proto.
var reasonCodes = map[ErrorReason]codes.Code{
	ErrorReason_INVALID_FIELD:            codes.InvalidArgument,
	ErrorReason_WORKFLOW_NOT_FOUND:       codes.NotFound,
	ErrorReason_WORKFLOW_STATE:           codes.FailedPrecondition,
	ErrorReason_MOUNT_NOT_FOUND:          codes.FailedPrecondition,
	ErrorReason_MOUNT_NOT_READY:          codes.FailedPrecondition,
	ErrorReason_FILESYSTEM_NOT_SUPPORTED: codes.InvalidArgument,
	ErrorReason_DESTINATION_NOT_FOUND:    codes.FailedPrecondition,
	ErrorReason_PROFILE_NOT_FOUND:        codes.FailedPrecondition,
	ErrorReason_MOVEMENT_NOT_FOUND:       codes.NotFound,
	ErrorReason_MOVEMENT_ACTIVE:          codes.FailedPrecondition,
	ErrorReason_ACCESS_DENIED:            codes.PermissionDenied,
	ErrorReason_UNAVAILABLE:              codes.Unavailable,
	ErrorReason_LIMIT_EXCEEDED:           codes.ResourceExhausted,
	ErrorReason_TIMEOUT:                  codes.DeadlineExceeded,
	ErrorReason_CALLER_GONE:              codes.Canceled,
	ErrorReason_INTERNAL:                 codes.Internal,
}

// Code returns the gRPC code of a reason, Internal for an unknown one.
func (x ErrorReason) Code() codes.Code {
	if c, ok := reasonCodes[x]; ok {
		return c
	}
	return codes.Internal
}

// NewError returns the gRPC error for a reason, with its code and details. The
// text is for people; metadata may be nil.
func NewError(reason ErrorReason, text string, metadata map[string]string) error {
	return newError(reason.Code(), text, &errdetails.ErrorInfo{
		Reason: reason.String(), Domain: ErrorDomain, Metadata: maps.Clone(metadata),
	})
}

func newError(c codes.Code, text string, details ...protoadapt.MessageV1) error {
	s := status.New(c, text)
	if with, err := s.WithDetails(details...); err == nil {
		s = with
	}
	return s.Err()
}

// Reason returns the reason and the metadata of an error from a call. The reason is
// unspecified if the error is from gRPC itself or from a daemon without version 2, or
// if this code does not know the reason. Use status.Code in that case.
func Reason(err error) (ErrorReason, map[string]string) {
	s, ok := status.FromError(err)
	if !ok {
		return ErrorReason_ERROR_REASON_UNSPECIFIED, nil
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == ErrorDomain {
			return ErrorReason(ErrorReason_value[info.GetReason()]), info.GetMetadata()
		}
	}
	return ErrorReason_ERROR_REASON_UNSPECIFIED, nil
}
