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

	"google.golang.org/grpc/codes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

var movements = schema.GroupResource{Group: "nnf.cray.hpe.com", Resource: "nnfdatamovements"}

// Every error has a kind, a reason with its gRPC code, and a text that does not contain
// the text of the API server.
func TestExplain(t *testing.T) {
	api := func(code int32, reason metav1.StatusReason) error {
		return fmt.Errorf("get secret/path: %w", &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Message: "account system:x may not"}})
	}
	for _, c := range []struct {
		name   string
		err    error
		kind   error
		code   codes.Code
		reason v2.ErrorReason
	}{
		{"invalid", refused("slots", "-2", "rule"), ErrInvalid, codes.InvalidArgument, v2.ErrorReason_INVALID_FIELD},
		{"wrapped", fmt.Errorf("x: %w", refused("slots", "-2", "rule")), ErrInvalid, codes.InvalidArgument, v2.ErrorReason_INVALID_FIELD},
		{"failed", failed(v2.ErrorReason_MOUNT_NOT_FOUND, "x"), ErrFailed, codes.FailedPrecondition, v2.ErrorReason_MOUNT_NOT_FOUND},
		{"no movement", MovementNotFound("x"), ErrNotFound, codes.NotFound, v2.ErrorReason_MOVEMENT_NOT_FOUND},
		{"no workflow", WorkflowNotFound(job7), ErrNotFound, codes.NotFound, v2.ErrorReason_WORKFLOW_NOT_FOUND},
		{"active", StillActive("x"), ErrActive, codes.FailedPrecondition, v2.ErrorReason_MOVEMENT_ACTIVE},
		{"denied", refuse("x").Err(nil), ErrDenied, codes.PermissionDenied, v2.ErrorReason_ACCESS_DENIED},
		{"limit", LimitExceeded("limits.create_burst"), ErrExhausted, codes.ResourceExhausted, v2.ErrorReason_LIMIT_EXCEEDED},
		{"unavailable", NewFault(ErrUnavailable, v2.ErrorReason_UNAVAILABLE, "x"), ErrUnavailable, codes.Unavailable, v2.ErrorReason_UNAVAILABLE},
		{"caller gone", fmt.Errorf("x: %w", context.Canceled), ErrUnavailable, codes.Canceled, v2.ErrorReason_CALLER_GONE},
		{"timeout", context.DeadlineExceeded, ErrUnavailable, codes.DeadlineExceeded, v2.ErrorReason_TIMEOUT},
		{"API forbids", api(http.StatusForbidden, metav1.StatusReasonForbidden), ErrFailed, codes.Internal, v2.ErrorReason_INTERNAL},
		{"API refuses", api(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid), ErrFailed, codes.Internal, v2.ErrorReason_INTERNAL},
		{"API object missing", apierrors.NewNotFound(movements, "secret"), ErrFailed, codes.Internal, v2.ErrorReason_INTERNAL},
		{"API server error", api(http.StatusInternalServerError, metav1.StatusReasonInternalError), ErrUnavailable, codes.Unavailable, v2.ErrorReason_UNAVAILABLE},
		{"no network", fmt.Errorf("dial secret: %w", io.EOF), ErrUnavailable, codes.Unavailable, v2.ErrorReason_UNAVAILABLE},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Explain(c.err)
			if f.Kind != c.kind || f.Reason != c.reason || f.Reason.Code() != c.code || f.Error() == "" || !errors.Is(f, f.Kind) {
				t.Errorf("%v, %s, %s: %v", f.Kind, f.Reason, f.Reason.Code(), f)
			}
			if strings.Contains(f.Error(), "secret") || strings.Contains(f.Error(), "system:") {
				t.Errorf("%v", f)
			}
			if inner := (*Fault)(nil); !errors.As(c.err, &inner) && !errors.Is(f, errors.Unwrap(c.err)) && !errors.Is(f, c.err) {
				t.Errorf("%v has no cause", f)
			}
		})
	}
	if f := Explain(nil); f != nil {
		t.Error(f)
	}
}

func TestStepAt(t *testing.T) {
	for _, c := range []struct {
		step Step
		err  error
		want string
	}{
		{StepMount, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "no client mounts found for node 'n'"), "Error finding compute mount info: no client mounts found for node 'n'"},
		{StepLustre, failed(v2.ErrorReason_DESTINATION_NOT_FOUND, "x"), "Error during createNnfDataMovement(): x"},
		{StepGFS2, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "x"), "Error during createNnfNodeDataMovement(): x"},
		{StepProfile, failed(v2.ErrorReason_PROFILE_NOT_FOUND, "x"), "Error finding profile: x"},
		{StepCreate, failed(v2.ErrorReason_INTERNAL, "x"), "Error creating DataMovement: x"},
		{StepWorkflow, failed(v2.ErrorReason_INTERNAL, "x"), "Could not find workflow: x"},
		{StepWorkflow, WorkflowNotFound(job7), `could not find workflow "default/job7"`},
		{StepGFS2, refused("source", "x", "rule"), `source "x" is refused: rule`},
		{StepMount, refuse("why").Err(nil), "why"},
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
	// The text of the API server does not appear with a step either.
	if err := StepCreate.At(errors.New("secret")); err == nil || strings.Contains(err.Error(), "secret") || !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func TestMetadata(t *testing.T) {
	for _, c := range []struct {
		f    *Fault
		want map[string]string
	}{
		{refused("slots", "-2", "rule"), map[string]string{"field": "slots"}},
		{LimitExceeded("limits.create_burst"), map[string]string{"limit": "limits.create_burst"}},
		{MovementNotFound("x"), nil},
	} {
		if got := c.f.Metadata(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %v", c.f, got)
		}
	}
}

func TestNewFaultCause(t *testing.T) {
	f := NewFault(ErrUnavailable, v2.ErrorReason_UNAVAILABLE, "look up: %w", io.EOF)
	if !errors.Is(f, io.EOF) || !errors.Is(f, ErrUnavailable) || f.Error() != "look up: EOF" {
		t.Error(f)
	}
}
