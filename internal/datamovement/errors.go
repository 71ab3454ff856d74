package datamovement

import (
	"context"
	"errors"
	"fmt"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Kinds of errors, for errors.Is. Every error that a caller gets has one of these
// kinds.
var (
	ErrInvalid     = errors.New("invalid request")             // the request itself is wrong
	ErrFailed      = errors.New("request failed")              // the request is valid, but the state of the system does not allow it
	ErrNotFound    = errors.New("not found")                   // missing, or hidden from the caller
	ErrDenied      = errors.New("permission denied")           // the caller may know that it exists
	ErrUnavailable = errors.New("service unavailable")         // the caller can retry
	ErrExhausted   = errors.New("limit exceeded")              // by this caller
	ErrActive      = errors.New("data movement has not ended") // Delete came too early
)

// Fault is an error for a caller: its kind, its reason, and the field of the
// request that caused it, if there is one. Its text may be shown to that caller.
type Fault struct {
	Kind   error          // one of the sentinels above
	Reason v2.ErrorReason // Reason.Code is the gRPC code of the fault
	Field  string         // name of the field in the protocol, or of the setting with the limit; may be empty
	text   string
	cause  error
}

// Error returns the text for the caller.
func (f *Fault) Error() string { return f.text }

// Unwrap returns the kind and the cause.
func (f *Fault) Unwrap() []error {
	if f.cause == nil {
		return []error{f.Kind}
	}
	return []error{f.Kind, f.cause}
}

// Cause returns the cause of the fault, or nil. Its text is for the log, not for
// the caller.
func (f *Fault) Cause() error { return f.cause }

// Metadata returns the metadata that version 2 sends with the reason in
// google.rpc.ErrorInfo, or nil.
func (f *Fault) Metadata() map[string]string {
	switch {
	case f.Field == "":
		return nil
	case f.Reason == v2.ErrorReason_LIMIT_EXCEEDED:
		return map[string]string{v2.MetadataLimit: f.Field}
	}
	return map[string]string{v2.MetadataField: f.Field}
}

// NewFault returns a fault with a formatted text. An error wrapped by %w becomes its
// cause.
func NewFault(kind error, reason v2.ErrorReason, format string, args ...any) *Fault {
	err := fmt.Errorf(format, args...)
	return &Fault{Kind: kind, Reason: reason, text: err.Error(), cause: errors.Unwrap(err)}
}

// Invalid returns a fault for an invalid field of the request.
func Invalid(field, format string, args ...any) *Fault {
	f := NewFault(ErrInvalid, v2.ErrorReason_INVALID_FIELD, format, args...)
	f.Field = field
	return f
}

// refused returns the fault for a value that violates a rule.
func refused(field, value, rule string) *Fault {
	return Invalid(field, "%s %s is refused: %s", field, text.Quote(value), rule)
}

// failed returns the fault for a valid request that the state of the system does
// not allow.
func failed(reason v2.ErrorReason, format string, args ...any) *Fault {
	return NewFault(ErrFailed, reason, format, args...)
}

// MovementNotFound returns the error for a data movement that does not exist or is
// hidden from the caller. Both have the same text, so that callers cannot find out
// which names exist.
func MovementNotFound(uid string) *Fault {
	return NewFault(ErrNotFound, v2.ErrorReason_MOVEMENT_NOT_FOUND, "could not find data movement %s", text.Quote(uid))
}

// WorkflowNotFound returns the same kind of error for a workflow.
func WorkflowNotFound(w WorkflowRef) *Fault {
	return NewFault(ErrNotFound, v2.ErrorReason_WORKFLOW_NOT_FOUND, "could not find workflow %s", text.Quote(w.Namespace+"/"+w.Name))
}

// StillActive returns the error for a data movement that cannot be deleted yet.
func StillActive(uid string) *Fault {
	return NewFault(ErrActive, v2.ErrorReason_MOVEMENT_ACTIVE, "data movement %s has not ended: wait until it ends, or cancel it first", uid)
}

// LimitExceeded returns the error for a caller that exceeds a limit. setting is the
// name of the limit in the daemon's configuration.
func LimitExceeded(setting string) *Fault {
	f := NewFault(ErrExhausted, v2.ErrorReason_LIMIT_EXCEEDED, "limit exceeded: %s in the daemon's configuration", setting)
	f.Field = setting
	return f
}

// TooManyMovements returns the error for a user whose data movements on this node
// have reached the limit. They exist until they are deleted, even after their end.
// have describes them.
func TooManyMovements(setting, have string) *Fault {
	f := NewFault(ErrExhausted, v2.ErrorReason_LIMIT_EXCEEDED, "%s; the limit is %s in the daemon's configuration: delete those that have ended (List returns them)", have, setting)
	f.Field = setting
	return f
}

// Explain converts any error to a Fault. It returns faults unchanged, and maps
// errors of the API server and of the caller's context. The caller does not get the
// text of the API server, which can name objects and accounts of other users; it
// stays in the cause, for the log. Explain returns nil for nil.
func Explain(err error) *Fault {
	if err == nil {
		return nil
	}
	if f := (*Fault)(nil); errors.As(err, &f) {
		return f
	}
	wrap := func(kind error, reason v2.ErrorReason, text string) *Fault {
		return &Fault{Kind: kind, Reason: reason, text: text, cause: err}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return wrap(ErrUnavailable, v2.ErrorReason_CALLER_GONE, "the caller cancelled the request")
	case errors.Is(err, context.DeadlineExceeded):
		return wrap(ErrUnavailable, v2.ErrorReason_TIMEOUT, "the request timed out: try again")
	case kube.IsForbidden(err):
		return wrap(ErrFailed, v2.ErrorReason_INTERNAL, "the API server denied a request of the daemon: ask the administrator to check the daemon's log")
	case kube.IsInvalid(err):
		return wrap(ErrFailed, v2.ErrorReason_INTERNAL, "the API server rejected the data movement: ask the administrator to check the daemon's log")
	case kube.IsNotFound(err):
		return wrap(ErrFailed, v2.ErrorReason_INTERNAL, "an object that the request needs does not exist: ask the administrator to check the daemon's log")
	}
	return wrap(ErrUnavailable, v2.ErrorReason_UNAVAILABLE, "a request to the API server failed: try again; the daemon's log has the cause")
}

// WithoutStep returns err without the text that Step.At has added.
func WithoutStep(err error) error {
	f := Explain(err)
	if f == nil {
		return nil
	}
	if inner, ok := f.cause.(*Fault); ok {
		return WithoutStep(inner)
	}
	return f
}

// Step is the part of Create that failed. Messages of version 1 start with it.
type Step string

// The steps of Create, in order.
const (
	StepWorkflow Step = "Could not find workflow"
	StepMount    Step = "Error finding compute mount info"
	StepLustre   Step = "Error during createNnfDataMovement()"
	StepGFS2     Step = "Error during createNnfNodeDataMovement()"
	StepProfile  Step = "Error finding profile"
	StepCreate   Step = "Error creating DataMovement"
)

// At prefixes the text of err with the step and ": ", and keeps kind, reason and
// field. An error that is caused by the request or its caller is returned without
// the step.
func (s Step) At(err error) error {
	f := Explain(err)
	if f == nil {
		return nil
	}
	switch f.Kind {
	case ErrInvalid, ErrDenied, ErrNotFound:
		return f
	}
	out := *f
	out.text, out.cause = string(s)+": "+f.text, f
	return &out
}
