package server

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// Every field of a request arrives, and none is required.
func TestRequestV1(t *testing.T) {
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(KeyMetadata, "k"))
	got := requestV1(ctx, &v1.DataMovementCreateRequest{
		Workflow: &v1.DataMovementWorkflow{Name: "n", Namespace: "ns"}, Source: "s", Destination: "d", Dryrun: true, DcpOptions: "do", LogStdout: true, StoreStdout: true,
		Slots: 3, MaxSlots: -1, Profile: "p", MpirunOptions: "mo",
	})
	want := datamovement.Request{
		Workflow: datamovement.WorkflowRef{Name: "n", Namespace: "ns"}, Source: "s", Destination: "d", Dryrun: true, DCPOptions: "do", MPIRunOptions: "mo",
		LogStdout: true, StoreStdout: true, Slots: 3, MaxSlots: -1, Profile: "p", Key: "k",
	}
	if got != want {
		t.Errorf("%+v", got)
	}
	for _, r := range []*v1.DataMovementCreateRequest{nil, {}} {
		if got := requestV1(t.Context(), r); got != (datamovement.Request{}) {
			t.Errorf("%+v", got)
		}
	}
}

// Every error in version 1: in the response with a status and the text, or as a
// gRPC error with the same code and text as in version 2.
func TestErrorsV1(t *testing.T) {
	type (
		create = v1.DataMovementCreateResponse_Status
		del    = v1.DataMovementDeleteResponse_Status
		cancel = v1.DataMovementCancelResponse_Status
		state  = v1.DataMovementStatusResponse_Status
	)
	const (
		createFailed  = v1.DataMovementCreateResponse_FAILED
		deleteUnknown = v1.DataMovementDeleteResponse_UNKNOWN
		cancelFailed  = v1.DataMovementCancelResponse_FAILED
		unknown       = v1.DataMovementStatusResponse_UNKNOWN_STATUS
	)
	failed := func(reason v2.ErrorReason) error { return datamovement.NewFault(datamovement.ErrFailed, reason, "x") }
	hidden := datamovement.Verdict{Outcome: datamovement.Hidden, Reason: "why"}
	for _, c := range []struct {
		name   string
		err    error
		code   codes.Code // OK: in the response
		create create
		del    del
		cancel cancel
		status state
	}{
		{"invalid", datamovement.Invalid("slots", "x"), codes.OK, v1.DataMovementCreateResponse_INVALID, v1.DataMovementDeleteResponse_INVALID, v1.DataMovementCancelResponse_INVALID, v1.DataMovementStatusResponse_INVALID},
		{"wrapped", fmt.Errorf("y: %w", datamovement.Invalid("slots", "x")), codes.OK, v1.DataMovementCreateResponse_INVALID, v1.DataMovementDeleteResponse_INVALID, v1.DataMovementCancelResponse_INVALID, v1.DataMovementStatusResponse_INVALID},
		{"failed", failed(v2.ErrorReason_MOUNT_NOT_FOUND), codes.OK, createFailed, deleteUnknown, cancelFailed, unknown},
		{"no movement", datamovement.MovementNotFound("x"), codes.OK, createFailed, v1.DataMovementDeleteResponse_NOT_FOUND, v1.DataMovementCancelResponse_NOT_FOUND, v1.DataMovementStatusResponse_NOT_FOUND},
		{"hidden", hidden.Err(datamovement.MovementNotFound("x")), codes.OK, createFailed, v1.DataMovementDeleteResponse_NOT_FOUND, v1.DataMovementCancelResponse_NOT_FOUND, v1.DataMovementStatusResponse_NOT_FOUND},
		{"active", datamovement.StillActive("x"), codes.OK, createFailed, v1.DataMovementDeleteResponse_ACTIVE, cancelFailed, unknown},
		{"internal", failed(v2.ErrorReason_INTERNAL), codes.Internal, 0, 0, 0, 0},
		{"denied", datamovement.Verdict{Outcome: datamovement.Denied, Reason: "x"}.Err(nil), codes.PermissionDenied, 0, 0, 0, 0},
		{"limit", datamovement.LimitExceeded("limits.create_burst"), codes.ResourceExhausted, 0, 0, 0, 0},
		{"gone", context.Canceled, codes.Canceled, 0, 0, 0, 0},
		{"late", context.DeadlineExceeded, codes.DeadlineExceeded, 0, 0, 0, 0},
		{"API server", errors.New("secret"), codes.Unavailable, 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := datamovement.Explain(c.err).Error()
			created, err1 := createV1("", c.err)
			deleted, err2 := deleteV1(c.err)
			cancelled, err3 := cancelV1(c.err)
			shown, err4 := statusV1(c.err)
			for _, err := range []error{err1, err2, err3, err4, errorV1(c.err), errorV2(c.err)} {
				if c.code != codes.OK && (status.Code(err) != c.code || status.Convert(err).Message() != text) {
					t.Errorf("%v, want %v %q", err, c.code, text)
				}
			}
			if c.code != codes.OK {
				return
			}
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Fatal(err)
			}
			if created.Status != c.create || created.Message != text || deleted.Status != c.del || deleted.Message != text || cancelled.Status != c.cancel || cancelled.Message != text {
				t.Errorf("%v; %v; %v", created, deleted, cancelled)
			}
			if c.status == v1.DataMovementStatusResponse_NOT_FOUND {
				text = ""
			}
			if shown.State != v1.DataMovementStatusResponse_UNKNOWN_STATE || shown.Status != c.status || shown.Message != text {
				t.Errorf("%v", shown)
			}
		})
	}
	created, err1 := createV1("u", nil)
	deleted, err2 := deleteV1(nil)
	cancelled, err3 := cancelV1(nil)
	if created.GetUid() != "u" || created.Status != v1.DataMovementCreateResponse_SUCCESS || deleted.GetStatus() != v1.DataMovementDeleteResponse_SUCCESS ||
		cancelled.GetStatus() != v1.DataMovementCancelResponse_SUCCESS || created.Message+deleted.Message+cancelled.Message != "" || errors.Join(err1, err2, err3, errorV1(nil), errorV2(nil)) != nil {
		t.Errorf("%v %v; %v %v; %v %v", created, err1, deleted, err2, cancelled, err3)
	}
}

// A movement of another user and one that does not exist are the same on the wire.
func TestHiddenIsMissingV2(t *testing.T) {
	missing := datamovement.MovementNotFound("u")
	a, b := errorV2(datamovement.Verdict{}.Err(missing)), errorV2(missing)
	if status.Convert(a).String() != status.Convert(b).String() || status.Code(a) != codes.NotFound {
		t.Error(a, b)
	}
	r, meta := v2.Reason(errorV2(datamovement.Invalid("slots", "x")))
	if r != v2.ErrorReason_INVALID_FIELD || meta["field"] != "slots" {
		t.Error(r, meta)
	}
}
