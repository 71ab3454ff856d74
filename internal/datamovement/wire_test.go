package datamovement

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// Our numbers are those of the protocol, by the names that the contract gives.
func TestNumbersV1(t *testing.T) {
	for _, c := range []struct {
		name   string
		values map[string]int32
		ours   map[string]int32
	}{
		{"state", v1.DataMovementStatusResponse_State_value, map[string]int32{
			"PENDING": int32(StatePending), "STARTING": int32(StateStarting), "RUNNING": int32(StateRunning), "COMPLETED": int32(StateCompleted),
			"CANCELLING": int32(StateCancelling), "UNKNOWN_STATE": int32(StateUnknown)}},
		{"status", v1.DataMovementStatusResponse_Status_value, map[string]int32{
			"INVALID": int32(ResultInvalid), "NOT_FOUND": int32(ResultNotFound), "SUCCESS": int32(ResultSuccess), "FAILED": int32(ResultFailed),
			"CANCELLED": int32(ResultCancelled), "UNKNOWN_STATUS": int32(ResultUnknown)}},
		{"create", v1.DataMovementCreateResponse_Status_value, map[string]int32{
			"SUCCESS": int32(CreateSuccess), "FAILED": int32(CreateFailed), "INVALID": int32(CreateInvalid)}},
		{"delete", v1.DataMovementDeleteResponse_Status_value, map[string]int32{
			"INVALID": int32(DeleteInvalid), "NOT_FOUND": int32(DeleteNotFound), "SUCCESS": int32(DeleteSuccess), "ACTIVE": int32(DeleteActive), "UNKNOWN": int32(DeleteUnknown)}},
		{"cancel", v1.DataMovementCancelResponse_Status_value, map[string]int32{
			"INVALID": int32(CancelInvalid), "NOT_FOUND": int32(CancelNotFound), "SUCCESS": int32(CancelSuccess), "FAILED": int32(CancelFailed)}},
	} {
		if !reflect.DeepEqual(c.values, c.ours) {
			t.Errorf("%s: %v, want %v", c.name, c.ours, c.values)
		}
	}
	for ours, grpc := range map[Code]codes.Code{
		CodeOK: codes.OK, CodeCanceled: codes.Canceled, CodeInvalidArgument: codes.InvalidArgument, CodeDeadlineExceeded: codes.DeadlineExceeded, CodeNotFound: codes.NotFound,
		CodePermissionDenied: codes.PermissionDenied, CodeResourceExhausted: codes.ResourceExhausted, CodeFailedPrecondition: codes.FailedPrecondition,
		CodeInternal: codes.Internal, CodeUnavailable: codes.Unavailable,
	} {
		if codes.Code(ours) != grpc {
			t.Errorf("%d is not %v", ours, grpc)
		}
	}
}

// Every field of a request arrives, and nothing is needed.
func TestRequestV1(t *testing.T) {
	got := RequestV1(&v1.DataMovementCreateRequest{
		Workflow: &v1.DataMovementWorkflow{Name: "n", Namespace: "ns"}, Source: "s", Destination: "d", Dryrun: true, DcpOptions: "do", LogStdout: true, StoreStdout: true,
		Slots: 3, MaxSlots: -1, Profile: "p", MpirunOptions: "mo",
	}, "k")
	want := Request{WorkflowRef{"n", "ns"}, "s", "d", true, "do", "mo", true, true, 3, -1, "p", "k", ""}
	if got != want {
		t.Errorf("%+v", got)
	}
	for _, r := range []*v1.DataMovementCreateRequest{nil, {}} {
		if got := RequestV1(r, ""); got != (Request{}) {
			t.Errorf("%+v", got)
		}
	}
}

func TestAnswerV1(t *testing.T) {
	a := Answer{StateRunning, ResultUnknown, "m", &CommandAnswer{Command: "c", Progress: 7, ElapsedTime: "1s", LastMessage: "l", LastMessageTime: "lt"}, "s", "e", 2, "w"}
	want := &v1.DataMovementStatusResponse{
		State: v1.DataMovementStatusResponse_RUNNING, Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS, Message: "m", StartTime: "s", EndTime: "e",
		CommandStatus: &v1.DataMovementCommandStatus{Command: "c", Progress: 7, ElapsedTime: "1s", LastMessage: "l", LastMessageTime: "lt"},
	}
	if got := a.V1(); !proto.Equal(got, want) {
		t.Errorf("%v\n%v", got, want)
	}
	// What is pending has a status and nothing else (contract nnf-dm.md 4.4).
	dm := movement(func(d *nnf.DataMovement) { d.Status.Message = "waits" })
	if got := AnswerOf(dm).V1(); !proto.Equal(got, &v1.DataMovementStatusResponse{Status: v1.DataMovementStatusResponse_UNKNOWN_STATUS}) {
		t.Errorf("%v", got)
	}
	for err, want := range map[error]Answer{
		MovementNotFound("x"):               {State: StateUnknown, Result: ResultNotFound},
		refused("uid", "X", "r"):            {State: StateUnknown, Result: ResultInvalid, Message: `uid "X" is refused: r`},
		failed(ReasonMountNotFound, "x"):    {State: StateUnknown, Result: ResultUnknown, Message: "x"},
		hide("x").Err(MovementNotFound("")): {State: StateUnknown, Result: ResultNotFound},
	} {
		if got := AnswerError(err); got != want {
			t.Errorf("%v: %+v", err, got)
		}
	}
}

func TestStatusV2(t *testing.T) {
	dm := movement(label(api.LabelBatch, "batch-1"))
	if s := StatusV2(dm); s.State != v2.MovementState_MOVEMENT_STATE_PENDING || s.Result != 0 || s.Uid != dm.Name || s.BatchUid != "batch-1" || s.CommandStatus != nil || s.StartTime != nil ||
		s.Source != dm.Spec.Source.Path || s.Destination != dm.Spec.Destination.Path {
		t.Errorf("%v", s)
	}
	dm.Status.Message = "waits"
	if s := StatusV2(dm); s.Message != "waits" {
		t.Errorf("%v", s)
	}
	if err := json.Unmarshal([]byte(`{"state":"Running","startTime":"2025-04-01T16:46:40.5Z","restarts":1,"message":"m",
		"commandStatus":{"command":"c","elapsedTime":"1.5s","progress":0,"files":3,"data":"1 B","lastMessage":"l"}}`), &dm.Status); err != nil {
		t.Fatal(err)
	}
	s := StatusV2(dm)
	c := s.CommandStatus
	if s.State != v2.MovementState_MOVEMENT_STATE_RUNNING || s.Result != 0 || s.Restarts != 1 || s.Message != "m" || s.StartTime.AsTime().Unix() != 1743526000 || s.EndTime != nil {
		t.Errorf("%v", s)
	}
	if c.Progress == nil || *c.Progress != 0 || c.GetFiles() != 3 || c.Items != nil || c.ElapsedTime.AsDuration() != 1500*time.Millisecond || c.Data != "1 B" || c.LastMessageTime != nil {
		t.Errorf("%v", c)
	}
	for status, want := range map[string]v2.MovementResult{"Success": 1, "Failed": 2, "Invalid": 3, "Cancelled": 4, "": 0, "New": 0} {
		dm.Status.State, dm.Status.Status = "Finished", status
		if s := StatusV2(dm); s.Result != want || s.State != v2.MovementState_MOVEMENT_STATE_COMPLETED {
			t.Errorf("%q: %v", status, s)
		}
	}
	if a, b := GoneV2("u", true), GoneV2("u", false); a.Result != 4 || b.Result != 5 || a.Uid != "u" || a.State != b.State || a.State != 5 {
		t.Error(a, b)
	}
}

func TestStatusError(t *testing.T) {
	err := StatusError(refused("slots", "-2", "rule"))
	s := status.Convert(err)
	if s.Code() != codes.InvalidArgument || s.Message() != `slots "-2" is refused: rule` || len(s.Details()) != 1 {
		t.Fatal(s)
	}
	if info := s.Details()[0].(*errdetails.ErrorInfo); info.Reason != "INVALID_FIELD" || info.Domain != "nnf-dm" || info.Metadata["field"] != "slots" {
		t.Error(info)
	}
	if s := status.Convert(StatusError(errors.New("secret"))); s.Code() != codes.Unavailable || s.Message() == "secret" {
		t.Error(s)
	}
	if StatusError(nil) != nil || Problem(nil) != nil {
		t.Error("an error from nothing")
	}
	// What is hidden and what is missing are the same on the wire.
	a, b := StatusError(hide("why").Err(MovementNotFound("u"))), StatusError(MovementNotFound("u"))
	if !proto.Equal(status.Convert(a).Proto(), status.Convert(b).Proto()) {
		t.Error(a, b)
	}
	if p := Problem(failed(ReasonMountNotReady, "x")); p.Reason != v2.ErrorReason_MOUNT_NOT_READY || p.Message != "x" || p.Metadata != nil {
		t.Error(p)
	}
}

// Every reason has its name in the protocol, and the other way round.
func TestReasons(t *testing.T) {
	ours := map[string]bool{"ERROR_REASON_UNSPECIFIED": true}
	for _, r := range []Reason{
		ReasonInvalidField, ReasonWorkflowNotFound, ReasonWorkflowState, ReasonMountNotFound, ReasonMountNotReady, ReasonFileSystem, ReasonDestinationUnknown, ReasonProfileNotFound,
		ReasonMovementNotFound, ReasonMovementActive, ReasonDenied, ReasonUnavailable, ReasonLimit, ReasonTimeout, ReasonCancelled, ReasonInternal,
	} {
		ours[string(r)] = true
		if _, ok := v2.ErrorReason_value[string(r)]; !ok {
			t.Errorf("%s is not in the protocol", r)
		}
	}
	for name := range v2.ErrorReason_value {
		if !ours[name] {
			t.Errorf("%s is not ours", name)
		}
	}
}
