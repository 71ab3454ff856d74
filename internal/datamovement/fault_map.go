package datamovement

import (
	"context"
	"errors"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Code is a google.rpc.Code by its number, so that what is pure need not link
// gRPC.
type Code uint32

// The codes that are used (google/rpc/code.proto).
const (
	CodeOK                 Code = 0
	CodeCanceled           Code = 1
	CodeInvalidArgument    Code = 3
	CodeDeadlineExceeded   Code = 4
	CodeNotFound           Code = 5
	CodePermissionDenied   Code = 7
	CodeResourceExhausted  Code = 8
	CodeFailedPrecondition Code = 9
	CodeInternal           Code = 13
	CodeUnavailable        Code = 14
)

// Explain turns any error into a Fault: it passes faults through, and judges
// those of the API server and of the caller's context. Texts of the API server
// are for the log; the caller gets none of them, for they name objects and
// accounts that are not theirs. A nil error gives nil.
func Explain(err error) *Fault {
	if err == nil {
		return nil
	}
	if f := (*Fault)(nil); errors.As(err, &f) {
		return f
	}
	wrap := func(kind error, reason Reason, text string) *Fault {
		return &Fault{Kind: kind, Reason: reason, text: text, cause: err}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return wrap(ErrUnavailable, ReasonCancelled, "the request was cancelled by the caller")
	case errors.Is(err, context.DeadlineExceeded):
		return wrap(ErrUnavailable, ReasonTimeout, "there was no answer in time: try again")
	case kube.IsForbidden(err):
		return wrap(ErrFailed, ReasonInternal, "the daemon lacks a right on the API server: tell the administrator, the daemon's log says which")
	case kube.IsInvalid(err):
		return wrap(ErrFailed, ReasonInternal, "the API server does not accept the data movement: tell the administrator, the daemon's log says why")
	case kube.IsNotFound(err):
		return wrap(ErrFailed, ReasonInternal, "an object that the request needs does not exist: the daemon's log says which")
	}
	return wrap(ErrUnavailable, ReasonUnavailable, "the API server does not answer as it should: try again, the daemon's log says more")
}

// CodeOf returns the gRPC code that fits err, CodeOK for nil.
func CodeOf(err error) Code {
	f := Explain(err)
	if f == nil {
		return CodeOK
	}
	switch f.Reason {
	case ReasonCancelled:
		return CodeCanceled
	case ReasonTimeout:
		return CodeDeadlineExceeded
	case ReasonInternal:
		return CodeInternal
	}
	switch f.Kind {
	case ErrInvalid:
		return CodeInvalidArgument
	case ErrFailed, ErrActive:
		return CodeFailedPrecondition
	case ErrNotFound:
		return CodeNotFound
	case ErrDenied:
		return CodePermissionDenied
	case ErrExhausted:
		return CodeResourceExhausted
	case ErrUnavailable:
		return CodeUnavailable
	}
	return CodeInternal
}

// Info returns what version 2 sends as google.rpc.ErrorInfo: reason and
// metadata, which is nil when there is none.
func (f *Fault) Info() (Reason, map[string]string) {
	switch {
	case f.Field == "":
		return f.Reason, nil
	case f.Reason == ReasonLimit:
		return f.Reason, map[string]string{"limit": f.Field}
	}
	return f.Reason, map[string]string{"field": f.Field}
}

// LimitExceeded is the error for a caller that has too much going on. setting
// is the one of the daemon's configuration that says how much is allowed.
func LimitExceeded(setting string) *Fault {
	f := NewFault(ErrExhausted, ReasonLimit, "too much at once for one user: the limit is %s of the daemon's configuration", setting)
	f.Field = setting
	return f
}

// TooManyMovements is LimitExceeded for a user whose data movements on this node
// reach the limit because they are kept after their end. have says what there is.
func TooManyMovements(setting, have string) *Fault {
	f := NewFault(ErrExhausted, ReasonLimit, "%s exist on this node and are not deleted, the limit is %s of the daemon's configuration: delete those that have ended (List shows them)", have, setting)
	f.Field = setting
	return f
}
