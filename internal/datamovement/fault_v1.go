package datamovement

import "errors"

// CreateStatus is DataMovementCreateResponse.Status by its number.
type CreateStatus int32

// Numbers of the protocol (contract nnf-dm.md 3).
const (
	CreateSuccess CreateStatus = 0
	CreateFailed  CreateStatus = 1
	CreateInvalid CreateStatus = 2
)

// Step is what Create was at when it failed; version 1 says so in its message
// (contract nnf-dm.md 4.2).
type Step string

// The steps of Create in their order.
const (
	StepWorkflow Step = "Could not find workflow"
	StepMount    Step = "Error finding compute mount info"
	StepLustre   Step = "Error during createNnfDataMovement()"
	StepGFS2     Step = "Error during createNnfNodeDataMovement()"
	StepIdentity Step = "Error authenticating"
	StepProfile  Step = "Error finding profile"
	StepCreate   Step = "Error creating DataMovement"
)

// At puts the step before the text of err, joined by ": ", and keeps kind,
// reason and field. What is wrong with the request or its caller says so without.
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

// InResponse tells whether version 1 reports err inside a response with gRPC
// code OK, as its clients expect of what the application finds. Anything else
// is a gRPC error with CodeOf (contract nnf-dm.md 4, "Do better" 24).
func InResponse(err error) bool {
	f := Explain(err)
	if f == nil {
		return true
	}
	if f.Reason == ReasonInternal {
		return false
	}
	return errors.Is(f.Kind, ErrInvalid) || errors.Is(f.Kind, ErrFailed) || errors.Is(f.Kind, ErrNotFound) || errors.Is(f.Kind, ErrActive)
}

// CreateAnswer returns status and message of a version 1 Create response. It is
// for errors of which InResponse is true.
func CreateAnswer(err error) (CreateStatus, string) {
	f := Explain(err)
	switch {
	case f == nil:
		return CreateSuccess, ""
	case f.Kind == ErrInvalid:
		return CreateInvalid, f.Error()
	}
	return CreateFailed, f.Error()
}

// DeleteStatus is DataMovementDeleteResponse.Status by its number.
type DeleteStatus int32

// Numbers of the protocol (contract nnf-dm.md 3).
const (
	DeleteInvalid  DeleteStatus = 0
	DeleteNotFound DeleteStatus = 1
	DeleteSuccess  DeleteStatus = 2
	DeleteActive   DeleteStatus = 3
	DeleteUnknown  DeleteStatus = 4
)

// DeleteAnswer is CreateAnswer for Delete.
func DeleteAnswer(err error) (DeleteStatus, string) {
	f := Explain(err)
	switch {
	case f == nil:
		return DeleteSuccess, ""
	case f.Kind == ErrInvalid:
		return DeleteInvalid, f.Error()
	case f.Kind == ErrNotFound:
		return DeleteNotFound, f.Error()
	case f.Kind == ErrActive:
		return DeleteActive, f.Error()
	}
	return DeleteUnknown, f.Error()
}

// CancelStatus is DataMovementCancelResponse.Status by its number.
type CancelStatus int32

// Numbers of the protocol (contract nnf-dm.md 3).
const (
	CancelInvalid  CancelStatus = 0
	CancelNotFound CancelStatus = 1
	CancelSuccess  CancelStatus = 2
	CancelFailed   CancelStatus = 3
)

// CancelAnswer is CreateAnswer for Cancel.
func CancelAnswer(err error) (CancelStatus, string) {
	f := Explain(err)
	switch {
	case f == nil:
		return CancelSuccess, ""
	case f.Kind == ErrInvalid:
		return CancelInvalid, f.Error()
	case f.Kind == ErrNotFound:
		return CancelNotFound, f.Error()
	}
	return CancelFailed, f.Error()
}
