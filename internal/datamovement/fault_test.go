package datamovement

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var movements = schema.GroupResource{Group: "nnf.cray.hpe.com", Resource: "nnfdatamovements"}

// Every error in both versions of the protocol.
func TestFaultMap(t *testing.T) {
	api := func(code int32, reason metav1.StatusReason) error {
		return fmt.Errorf("get secret/path: %w", &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Message: "account system:x may not"}})
	}
	for _, c := range []struct {
		name   string
		err    error
		code   Code
		reason Reason
		inside bool // in a version 1 response
		create CreateStatus
		del    DeleteStatus
		cancel CancelStatus
	}{
		{"invalid", refused("slots", "-2", "rule"), CodeInvalidArgument, ReasonInvalidField, true, CreateInvalid, DeleteInvalid, CancelInvalid},
		{"wrapped", fmt.Errorf("x: %w", refused("slots", "-2", "rule")), CodeInvalidArgument, ReasonInvalidField, true, CreateInvalid, DeleteInvalid, CancelInvalid},
		{"failed", failed(ReasonMountNotFound, "x"), CodeFailedPrecondition, ReasonMountNotFound, true, CreateFailed, DeleteUnknown, CancelFailed},
		{"no movement", MovementNotFound("x"), CodeNotFound, ReasonMovementNotFound, true, CreateFailed, DeleteNotFound, CancelNotFound},
		{"no workflow", WorkflowNotFound(job7), CodeNotFound, ReasonWorkflowNotFound, true, CreateFailed, DeleteNotFound, CancelNotFound},
		{"active", NewFault(ErrActive, ReasonMovementActive, "x"), CodeFailedPrecondition, ReasonMovementActive, true, CreateFailed, DeleteActive, CancelFailed},
		{"denied", refuse("x").Err(nil), CodePermissionDenied, ReasonDenied, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"limit", LimitExceeded("limits.create_burst"), CodeResourceExhausted, ReasonLimit, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"unavailable", NewFault(ErrUnavailable, ReasonUnavailable, "x"), CodeUnavailable, ReasonUnavailable, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"gone", fmt.Errorf("x: %w", context.Canceled), CodeCanceled, ReasonCancelled, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"late", context.DeadlineExceeded, CodeDeadlineExceeded, ReasonTimeout, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"API forbids", api(http.StatusForbidden, metav1.StatusReasonForbidden), CodeInternal, ReasonInternal, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"API refuses", api(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid), CodeInternal, ReasonInternal, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"API has not", apierrors.NewNotFound(movements, "secret"), CodeInternal, ReasonInternal, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"API is broken", api(http.StatusInternalServerError, metav1.StatusReasonInternalError), CodeUnavailable, ReasonUnavailable, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"no network", fmt.Errorf("dial secret: %w", io.EOF), CodeUnavailable, ReasonUnavailable, false, CreateFailed, DeleteUnknown, CancelFailed},
		{"nil", nil, CodeOK, "", true, CreateSuccess, DeleteSuccess, CancelSuccess},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Explain(c.err)
			create, m1 := CreateAnswer(c.err)
			del, m2 := DeleteAnswer(c.err)
			cancel, m3 := CancelAnswer(c.err)
			if CodeOf(c.err) != c.code || InResponse(c.err) != c.inside || create != c.create || del != c.del || cancel != c.cancel {
				t.Errorf("code %d, inside %v, create %d, delete %d, cancel %d", CodeOf(c.err), InResponse(c.err), create, del, cancel)
			}
			if f == nil {
				if c.err != nil || m1+m2+m3 != "" {
					t.Errorf("%q %q %q", m1, m2, m3)
				}
				return
			}
			if f.Reason != c.reason || m1 != f.Error() || m2 != m1 || m3 != m1 || m1 == "" {
				t.Errorf("%s, %q %q %q", f.Reason, m1, m2, m3)
			}
			// What the API server says is not for callers, but stays for the log.
			if strings.Contains(f.Error(), "secret") || strings.Contains(f.Error(), "system:") || !errors.Is(f, f.Kind) {
				t.Errorf("%v", f)
			}
			if inner := (*Fault)(nil); !errors.As(c.err, &inner) && !errors.Is(f, errors.Unwrap(c.err)) && !errors.Is(f, c.err) {
				t.Errorf("%v lost its cause", f)
			}
		})
	}
}

func TestStepAt(t *testing.T) {
	for _, c := range []struct {
		step Step
		err  error
		want string
	}{
		{StepMount, failed(ReasonMountNotFound, "no client mounts found for node 'n'"), "Error finding compute mount info: no client mounts found for node 'n'"},
		{StepLustre, failed(ReasonDestinationUnknown, "x"), "Error during createNnfDataMovement(): x"},
		{StepGFS2, failed(ReasonMountNotFound, "x"), "Error during createNnfNodeDataMovement(): x"},
		{StepIdentity, failed(ReasonInternal, "x"), "Error authenticating: x"},
		{StepProfile, ProfileNotFound("p"), "Error finding profile: unable to retrieve NnfDataMovementProfile: p"},
		{StepCreate, failed(ReasonInternal, "x"), "Error creating DataMovement: x"},
		{StepWorkflow, failed(ReasonInternal, "x"), "Could not find workflow: x"},
		{StepWorkflow, WorkflowNotFound(job7), `could not find workflow "default/job7"`},
		{StepGFS2, refused("source", "x", "rule"), `source "x" is refused: rule`},
		{StepIdentity, refuse("why").Err(nil), "why"},
	} {
		err := c.step.At(c.err)
		f, was := Explain(err), Explain(c.err)
		if err.Error() != c.want || f.Kind != was.Kind || f.Reason != was.Reason || f.Field != was.Field || !errors.Is(err, was.Kind) {
			t.Errorf("%q, %+v; want %q", err, f, c.want)
		}
	}
	if err := StepMount.At(nil); err != nil {
		t.Error(err)
	}
	// A cause from the API server keeps its neutral text.
	if err := StepCreate.At(errors.New("secret")); err == nil || strings.Contains(err.Error(), "secret") || !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func TestInfo(t *testing.T) {
	r, m := refused("slots", "-2", "rule").Info()
	if r != "INVALID_FIELD" || !reflect.DeepEqual(m, map[string]string{"field": "slots"}) {
		t.Error(r, m)
	}
	r, m = LimitExceeded("limits.create_burst").Info()
	if r != "LIMIT_EXCEEDED" || !reflect.DeepEqual(m, map[string]string{"limit": "limits.create_burst"}) {
		t.Error(r, m)
	}
	if r, m := MovementNotFound("x").Info(); r != "MOVEMENT_NOT_FOUND" || m != nil {
		t.Error(r, m)
	}
}

func TestNewFaultCause(t *testing.T) {
	f := NewFault(ErrUnavailable, ReasonUnavailable, "look up: %w", io.EOF)
	if !errors.Is(f, io.EOF) || !errors.Is(f, ErrUnavailable) || f.Error() != "look up: EOF" {
		t.Error(f)
	}
}
