package client

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

func TestMovement1(t *testing.T) {
	began := time.Date(2025, 4, 1, 11, 46, 36, 535519000, time.UTC)
	for name, tt := range map[string]struct {
		r    *pb.DataMovementStatusResponse
		want Movement
		kind Kind // with an empty state
	}{
		"pending": {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_PENDING, Status: pb.DataMovementStatusResponse_UNKNOWN_STATUS}, Movement{State: Pending}, 0},
		// Old daemons leave the status at 0, INVALID, while the copy runs.
		"running":    {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_RUNNING}, Movement{State: Running}, 0},
		"starting":   {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_STARTING}, Movement{State: Starting}, 0},
		"cancelling": {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_CANCELLING}, Movement{State: Cancelling}, 0},
		"success":    {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_SUCCESS}, Movement{State: Completed, Result: Success}, 0},
		"failed":     {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_FAILED, Message: "x"}, Movement{State: Completed, Result: Failure, Message: "x"}, 0},
		"invalid":    {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_INVALID}, Movement{State: Completed, Result: Refused}, 0},
		"cancelled":  {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_COMPLETED, Status: pb.DataMovementStatusResponse_CANCELLED}, Movement{State: Completed, Result: Cancelled}, 0},
		"missing":    {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_UNKNOWN_STATE, Status: pb.DataMovementStatusResponse_NOT_FOUND}, Movement{}, NotFound},
		"bad uid":    {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_UNKNOWN_STATE, Status: pb.DataMovementStatusResponse_INVALID, Message: "x"}, Movement{}, Invalid},
		"unknown":    {&pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_UNKNOWN_STATE, Status: pb.DataMovementStatusResponse_UNKNOWN_STATUS, Message: "x"}, Movement{State: Unknown, Message: "x"}, 0},
		"of later":   {&pb.DataMovementStatusResponse{State: 42}, Movement{State: Unknown}, 0},
	} {
		got, err := movement1("u", tt.r)
		if e := (*Error)(nil); errors.As(err, &e) != (tt.want.State == "") || e != nil && e.Kind != tt.kind {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.State != tt.want.State || got.Result != tt.want.Result || got.Message != tt.want.Message {
			t.Errorf("%s: %+v", name, got)
		}
	}
	m, err := movement1("u", &pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_RUNNING, StartTime: pb.TimeText(began), CommandStatus: &pb.DataMovementCommandStatus{
		Command: "dcp", Progress: 7, ElapsedTime: "1m30.25s", LastMessage: "line\n", LastMessageTime: "yesterday",
	}})
	if err != nil || m.ID != "u" || m.Command != "dcp" || *m.Percent != 7 || m.Elapsed() != 90250*time.Millisecond || m.LastMessage != "line" ||
		m.LastMessageTime != nil || m.StartTime == nil || !m.StartTime.Equal(began) || m.EndTime != nil {
		t.Errorf("%+v %v", m, err)
	}
	// 0 is also what is sent when nobody knows.
	if m, _ := movement1("u", &pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_RUNNING, CommandStatus: new(pb.DataMovementCommandStatus)}); m.Percent != nil {
		t.Errorf("%+v", m)
	}
}

func TestMovement2(t *testing.T) {
	for state := range pb2.MovementState_name {
		want := states2[pb2.MovementState(state)]
		if state == 0 {
			want = Unknown
		}
		if m := movement2(&pb2.MovementStatus{State: pb2.MovementState(state)}); m.State != want || want == "" {
			t.Errorf("state %d: %q", state, m.State)
		}
	}
	for result := range pb2.MovementResult_name {
		if m := movement2(&pb2.MovementStatus{Result: pb2.MovementResult(result)}); (m.Result == "") != (result == 0) {
			t.Errorf("result %d: %q", result, m.Result)
		}
	}
	m := movement2(&pb2.MovementStatus{EndTime: &timestamppb.Timestamp{Nanos: -5}})
	if m.EndTime != nil || m.Percent != nil {
		t.Errorf("%+v", m)
	}
}

// Every reason of the protocol is said in words, also when a daemon sends none.
func TestReasons(t *testing.T) {
	c := &Client{o: Options{Socket: "/s"}}
	for n, name := range pb2.ErrorReason_name {
		reason := pb2.ErrorReason(n)
		if n == 0 {
			continue
		}
		if words[reason] == "" {
			t.Errorf("%s has no words", name)
		}
		e := c.explain(pb2.NewError(reason, "", nil)).(*Error)
		if e.Text != words[reason] || e.Hint != hints[reason] {
			t.Errorf("%s: %+v", name, e)
		}
		if e := problem(&pb2.Problem{Reason: reason, Message: "why"}); e.Text != "why" || e.Kind != c.explain(pb2.NewError(reason, "", nil)).(*Error).Kind {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if e := problem(nil); e.Text == "" || e.Kind != Failed {
		t.Errorf("%+v", e)
	}
}
