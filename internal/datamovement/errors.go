package datamovement

import (
	"context"
	"errors"
	"fmt"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Kinds of failure, for errors.Is. Every error that a caller gets is one of
// them.
var (
	ErrInvalid     = errors.New("invalid request")             // the request itself is wrong
	ErrFailed      = errors.New("request failed")              // the request is fine, the state of the system is not
	ErrNotFound    = errors.New("not found")                   // missing, or hidden from the caller
	ErrDenied      = errors.New("permission denied")           // the caller may know that it exists
	ErrUnavailable = errors.New("service unavailable")         // worth a retry
	ErrExhausted   = errors.New("limit exceeded")              // of this caller
	ErrActive      = errors.New("data movement has not ended") // Delete came too early
)

// Fault is an error for a caller: its kind, its reason, and the field of the
// request that caused it, if there is one. Its text may be shown to that caller.
type Fault struct {
	Kind   error          // one of the sentinels above
	Reason v2.ErrorReason // its Code is the gRPC code of the fault
	Field  string         // the request's field by its name in the protocol, or the setting that limits, or empty
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

// Cause returns the error behind the fault, or nil. Its text is for the log, not
// for the caller.
func (f *Fault) Cause() error { return f.cause }

// Metadata returns what version 2 sends with the reason in google.rpc.ErrorInfo,
// nil when there is nothing.
func (f *Fault) Metadata() map[string]string {
	switch {
	case f.Field == "":
		return nil
	case f.Reason == v2.ErrorReason_LIMIT_EXCEEDED:
		return map[string]string{v2.MetadataLimit: f.Field}
	}
	return map[string]string{v2.MetadataField: f.Field}
}

// NewFault returns a fault with a text of its own.
func NewFault(kind error, reason v2.ErrorReason, format string, args ...any) *Fault {
	err := fmt.Errorf(format, args...)
	return &Fault{Kind: kind, Reason: reason, text: err.Error(), cause: errors.Unwrap(err)}
}

// Invalid returns a fault that blames a field of the request.
func Invalid(field, format string, args ...any) *Fault {
	f := NewFault(ErrInvalid, v2.ErrorReason_INVALID_FIELD, format, args...)
	f.Field = field
	return f
}

// refused names the field, its value and the rule that the value breaks.
func refused(field, value, rule string) *Fault {
	return Invalid(field, "%s %s is refused: %s", field, text.Quote(value), rule)
}

// failed is for a valid request that the state of the system does not allow.
func failed(reason v2.ErrorReason, format string, args ...any) *Fault {
	return NewFault(ErrFailed, reason, format, args...)
}

// MovementNotFound is the error for a data movement that is missing, and for one
// that the caller must not know of. Both have the same text, so that no caller
// learns which names exist.
func MovementNotFound(uid string) *Fault {
	return NewFault(ErrNotFound, v2.ErrorReason_MOVEMENT_NOT_FOUND, "could not find data movement %s", text.Quote(uid))
}

// WorkflowNotFound is MovementNotFound for workflows.
func WorkflowNotFound(w WorkflowRef) *Fault {
	return NewFault(ErrNotFound, v2.ErrorReason_WORKFLOW_NOT_FOUND, "could not find workflow %s", text.Quote(w.Namespace+"/"+w.Name))
}

// StillActive is the error for a data movement that cannot be deleted yet.
func StillActive(uid string) *Fault {
	return NewFault(ErrActive, v2.ErrorReason_MOVEMENT_ACTIVE, "data movement %s has not ended: wait for it, or cancel it first", uid)
}

// LimitExceeded is the error for a caller that exceeds a limit. setting is the
// limit's name in the daemon's configuration.
func LimitExceeded(setting string) *Fault {
	f := NewFault(ErrExhausted, v2.ErrorReason_LIMIT_EXCEEDED, "too much at once for one user: the limit is %s of the daemon's configuration", setting)
	f.Field = setting
	return f
}

// TooManyMovements is LimitExceeded for a user whose data movements on this node
// reach the limit because they are kept after their end. have says what exists.
func TooManyMovements(setting, have string) *Fault {
	f := NewFault(ErrExhausted, v2.ErrorReason_LIMIT_EXCEEDED, "%s exist on this node and are not deleted, the limit is %s of the daemon's configuration: delete those that have ended (List shows them)", have, setting)
	f.Field = setting
	return f
}

// Explain turns any error into a Fault: it passes faults through, and maps those
// of the API server and of the caller's context. The caller gets no text of the
// API server, because such texts name objects and accounts of others; they stay
// in the cause, for the log. A nil error gives nil.
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
		return wrap(ErrUnavailable, v2.ErrorReason_CALLER_GONE, "the request was cancelled by the caller")
	case errors.Is(err, context.DeadlineExceeded):
		return wrap(ErrUnavailable, v2.ErrorReason_TIMEOUT, "there was no answer in time: try again")
	case kube.IsForbidden(err):
		return wrap(ErrFailed, v2.ErrorReason_INTERNAL, "the daemon lacks a right on the API server: tell the administrator, the daemon's log says which")
	case kube.IsInvalid(err):
		return wrap(ErrFailed, v2.ErrorReason_INTERNAL, "the API server does not accept the data movement: tell the administrator, the daemon's log says why")
	case kube.IsNotFound(err):
		return wrap(ErrFailed, v2.ErrorReason_INTERNAL, "an object that the request needs does not exist: the daemon's log says which")
	}
	return wrap(ErrUnavailable, v2.ErrorReason_UNAVAILABLE, "the API server does not answer as it should: try again, the daemon's log says more")
}

// Step is the part of Create that failed. Version 1 names it in front of the
// message.
type Step string

// The steps of Create in their order.
const (
	StepWorkflow Step = "Could not find workflow"
	StepMount    Step = "Error finding compute mount info"
	StepLustre   Step = "Error during createNnfDataMovement()"
	StepGFS2     Step = "Error during createNnfNodeDataMovement()"
	StepProfile  Step = "Error finding profile"
	StepCreate   Step = "Error creating DataMovement"
)

// At puts the step before the text of err, joined by ": ", and keeps kind,
// reason and field. An error that blames the request or its caller stays as it
// is.
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
