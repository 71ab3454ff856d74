package client

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

var states2 = map[pb2.MovementState]State{
	pb2.MovementState_MOVEMENT_STATE_PENDING:    Pending,
	pb2.MovementState_MOVEMENT_STATE_STARTING:   Starting,
	pb2.MovementState_MOVEMENT_STATE_RUNNING:    Running,
	pb2.MovementState_MOVEMENT_STATE_CANCELLING: Cancelling,
	pb2.MovementState_MOVEMENT_STATE_COMPLETED:  Completed,
}

var results2 = map[pb2.MovementResult]Result{
	pb2.MovementResult_MOVEMENT_RESULT_SUCCESS:   Success,
	pb2.MovementResult_MOVEMENT_RESULT_FAILED:    Failure,
	pb2.MovementResult_MOVEMENT_RESULT_INVALID:   Refused,
	pb2.MovementResult_MOVEMENT_RESULT_CANCELLED: Cancelled,
	pb2.MovementResult_MOVEMENT_RESULT_DELETED:   Deleted,
}

// movement2 reads a status of version 2.
func movement2(r *pb2.MovementStatus) Movement {
	m := Movement{
		ID: r.GetUid(), Batch: r.GetBatchUid(), State: states2[r.GetState()], Result: results2[r.GetResult()], Message: r.GetMessage(),
		Source: r.GetSource(), Destination: r.GetDestination(),
		StartTime: time2(r.GetStartTime()), EndTime: time2(r.GetEndTime()), Restarts: r.GetRestarts(),
	}
	if m.State == "" {
		m.State = Unknown
	}
	if c := r.GetCommandStatus(); c != nil {
		m.Command, m.LastMessage, m.LastMessageTime = c.GetCommand(), strings.TrimSpace(c.GetLastMessage()), time2(c.GetLastMessageTime())
		m.Percent, m.Items, m.Directories, m.Files, m.Links = c.Progress, c.Items, c.Directories, c.Files, c.Links
		m.Data, m.Rate = c.GetData(), c.GetRate()
		m.ElapsedSeconds = c.GetElapsedTime().AsDuration().Seconds()
	}
	m.fromLastMessage()
	return m
}

func time2(t *timestamppb.Timestamp) *time.Time {
	if t == nil || !t.IsValid() {
		return nil
	}
	out := t.AsTime()
	return &out
}

// quote keeps what a user typed apart from our words.
func quote(s string) string { return strconv.Quote(s) }
