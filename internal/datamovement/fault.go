package datamovement

import (
	"errors"
	"fmt"
)

// Kinds of failure, for errors.Is. Every error that a caller gets is one of
// them.
var (
	ErrInvalid     = errors.New("invalid request")             // the request itself is wrong
	ErrFailed      = errors.New("request failed")              // the request is fine, the state of the system is not
	ErrNotFound    = errors.New("not found")                   // missing, or none of the caller's business
	ErrDenied      = errors.New("permission denied")           // the caller may know that it exists
	ErrUnavailable = errors.New("service unavailable")         // worth another try later
	ErrExhausted   = errors.New("limit exceeded")              // of this caller
	ErrActive      = errors.New("data movement has not ended") // Delete came too early
)

// Reason says in one word what went wrong. Version 2 of the service sends it
// as google.rpc.ErrorInfo, in domain ErrorDomain.
type Reason string

// ErrorDomain is the domain of the reasons below.
const ErrorDomain = "nnf-dm"

// Reasons. They are part of the interface: none changes its meaning.
const (
	ReasonInvalidField       Reason = "INVALID_FIELD" // metadata "field" names it
	ReasonWorkflowNotFound   Reason = "WORKFLOW_NOT_FOUND"
	ReasonWorkflowState      Reason = "WORKFLOW_STATE"
	ReasonMountNotFound      Reason = "MOUNT_NOT_FOUND"
	ReasonMountNotReady      Reason = "MOUNT_NOT_READY"
	ReasonFileSystem         Reason = "FILESYSTEM_NOT_SUPPORTED"
	ReasonDestinationUnknown Reason = "DESTINATION_NOT_FOUND"
	ReasonProfileNotFound    Reason = "PROFILE_NOT_FOUND"
	ReasonMovementNotFound   Reason = "MOVEMENT_NOT_FOUND"
	ReasonMovementActive     Reason = "MOVEMENT_ACTIVE"
	ReasonDenied             Reason = "ACCESS_DENIED"
	ReasonUnavailable        Reason = "UNAVAILABLE"
	ReasonLimit              Reason = "LIMIT_EXCEEDED" // metadata "limit" names the setting
	ReasonTimeout            Reason = "TIMEOUT"
	ReasonCancelled          Reason = "CALLER_GONE"
	ReasonInternal           Reason = "INTERNAL"
)

// Fault is an error for a caller: what kind it is, why, and which field of the
// request is to blame, if one is. Its text is fit to be shown to that caller.
type Fault struct {
	Kind   error // one of the sentinels above
	Reason Reason
	Field  string // the request's field by its name in the protocol, or the setting that limits, or empty
	text   string
	cause  error
}

// Error returns the text for the caller.
func (f *Fault) Error() string { return f.text }

// Unwrap leads to the kind and to the cause.
func (f *Fault) Unwrap() []error {
	if f.cause == nil {
		return []error{f.Kind}
	}
	return []error{f.Kind, f.cause}
}

// Cause returns the error behind the fault, whose text is not for the caller, or
// nil.
func (f *Fault) Cause() error { return f.cause }

// NewFault returns a fault with a text of its own.
func NewFault(kind error, reason Reason, format string, args ...any) *Fault {
	err := fmt.Errorf(format, args...)
	return &Fault{Kind: kind, Reason: reason, text: err.Error(), cause: errors.Unwrap(err)}
}

// refused names the field, its value and what would be right.
func refused(field, value, rule string) *Fault {
	return invalid(field, "%s %s is refused: %s", field, quote(value), rule)
}

// invalid blames a field of the request.
func invalid(field, format string, args ...any) *Fault {
	f := NewFault(ErrInvalid, ReasonInvalidField, format, args...)
	f.Field = field
	return f
}

// failed is for a request that is fine in a system that is not.
func failed(reason Reason, format string, args ...any) *Fault {
	return NewFault(ErrFailed, reason, format, args...)
}

// MovementNotFound is the answer for a data movement that is missing, and for
// one that the caller must not know of. There is one text for both, so that
// nobody learns which names exist.
func MovementNotFound(uid string) *Fault {
	return NewFault(ErrNotFound, ReasonMovementNotFound, "could not find data movement %s", quote(uid))
}

// WorkflowNotFound is MovementNotFound for workflows.
func WorkflowNotFound(w WorkflowRef) *Fault {
	return NewFault(ErrNotFound, ReasonWorkflowNotFound, "could not find workflow %s", quote(w.Namespace+"/"+w.Name))
}
