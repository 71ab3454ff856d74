package datamovement

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Completed reports whether the status of dm is final. The rabbit sets no end
// time for an invalid request.
func Completed(dm *nnf.DataMovement) bool {
	return dm.Status.State == nnf.MovementFinished || isSet(dm.Status.EndTime) || neverStarts(dm)
}

// neverStarts reports whether dm was cancelled and deleted before its start. The
// object exists until the rabbit removes its finalizer.
func neverStarts(dm *nnf.DataMovement) bool {
	return dm.Spec.Cancel && dm.DeletionTimestamp != nil && !Started(dm)
}

// Started reports whether the rabbit has started to process the movement. The
// rabbit never finishes a movement that is cancelled before that.
func Started(dm *nnf.DataMovement) bool {
	return dm.Status.State != "" || dm.Status.Status != "" || isSet(dm.Status.StartTime)
}

// pending reports whether a movement has been neither started nor refused.
func pending(dm *nnf.DataMovement) bool {
	return !isSet(dm.Status.StartTime) && !Completed(dm) && dm.Status.Status != nnf.MovementInvalid
}

// The rabbit's states and results in the enums of version 1. The rabbit has not
// written a status yet if they are empty.
var (
	states = map[string]v1.DataMovementStatusResponse_State{
		"":                   v1.DataMovementStatusResponse_UNKNOWN_STATE,
		nnf.MovementStarting: v1.DataMovementStatusResponse_STARTING,
		nnf.MovementRunning:  v1.DataMovementStatusResponse_RUNNING,
		nnf.MovementFinished: v1.DataMovementStatusResponse_COMPLETED,
	}
	results = map[string]v1.DataMovementStatusResponse_Status{
		"":                    v1.DataMovementStatusResponse_UNKNOWN_STATUS,
		nnf.MovementFailed:    v1.DataMovementStatusResponse_FAILED,
		nnf.MovementSuccess:   v1.DataMovementStatusResponse_SUCCESS,
		nnf.MovementInvalid:   v1.DataMovementStatusResponse_INVALID,
		nnf.MovementCancelled: v1.DataMovementStatusResponse_CANCELLED,
	}
)

// progress returns the state and the result of dm. The message of a pending
// movement contains the reason why the rabbit has not started it.
func progress(dm *nnf.DataMovement) (state v1.DataMovementStatusResponse_State, result v1.DataMovementStatusResponse_Status, message string) {
	s := &dm.Status
	if pending(dm) {
		state, result, message = v1.DataMovementStatusResponse_PENDING, v1.DataMovementStatusResponse_UNKNOWN_STATUS, s.Message
	} else {
		var known [2]bool
		state, known[0] = states[s.State]
		if !known[0] {
			state = v1.DataMovementStatusResponse_UNKNOWN_STATE
		}
		result, known[1] = results[s.Status]
		if !known[1] {
			result = v1.DataMovementStatusResponse_UNKNOWN_STATUS
		}
		message = s.Message
		// A newer rabbit may report states and results that this version does not support.
		if !known[0] || !known[1] {
			if message != "" {
				message += "; "
			}
			message += "the rabbit reports state " + text.Quote(s.State) + ", status " + text.Quote(s.Status) + ", unknown to this version of nnf-dm"
		}
	}
	if state != v1.DataMovementStatusResponse_COMPLETED && dm.Spec.Cancel {
		state = v1.DataMovementStatusResponse_CANCELLING
	}
	return state, result, message
}

// StatusV1 returns the status of dm in version 1. A pending movement has a state
// and nothing else. Times are local.
func StatusV1(dm *nnf.DataMovement) *v1.DataMovementStatusResponse {
	if neverStarts(dm) {
		return CancelledV1(dm.DeletionTimestamp.Time)
	}
	s := &dm.Status
	out := new(v1.DataMovementStatusResponse)
	out.State, out.Status, out.Message = progress(dm)
	if pending(dm) {
		out.Message = ""
		return out
	}
	out.StartTime, out.EndTime = timeV1(s.StartTime), timeV1(s.EndTime)
	out.CommandStatus = new(v1.DataMovementCommandStatus)
	if c := s.CommandStatus; c != nil {
		out.CommandStatus = &v1.DataMovementCommandStatus{
			Command: c.Command, ElapsedTime: v1.ElapsedText(c.ElapsedTime.Duration), LastMessage: c.LastMessage, LastMessageTime: timeV1(c.LastMessageTime),
		}
		if c.Progress != nil {
			out.CommandStatus.Progress = *c.Progress
		}
	}
	return out
}

const cancelledEarly = "cancelled before it was started"

// CancelledV1 returns the status of a movement that was cancelled before its start
// and deleted.
func CancelledV1(at time.Time) *v1.DataMovementStatusResponse {
	return &v1.DataMovementStatusResponse{
		State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_CANCELLED, Message: cancelledEarly,
		EndTime: v1.TimeText(at), CommandStatus: new(v1.DataMovementCommandStatus),
	}
}

// isSet reports whether the rabbit has written a valid time.
func isSet(t *nnf.MicroTime) bool { return t != nil && !t.IsZero() }

func timeV1(t *nnf.MicroTime) string {
	if !isSet(t) {
		return ""
	}
	return v1.TimeText(t.Time)
}

var (
	statesV2 = map[v1.DataMovementStatusResponse_State]v2.MovementState{
		v1.DataMovementStatusResponse_PENDING:    v2.MovementState_MOVEMENT_STATE_PENDING,
		v1.DataMovementStatusResponse_STARTING:   v2.MovementState_MOVEMENT_STATE_STARTING,
		v1.DataMovementStatusResponse_RUNNING:    v2.MovementState_MOVEMENT_STATE_RUNNING,
		v1.DataMovementStatusResponse_COMPLETED:  v2.MovementState_MOVEMENT_STATE_COMPLETED,
		v1.DataMovementStatusResponse_CANCELLING: v2.MovementState_MOVEMENT_STATE_CANCELLING,
	}
	resultsV2 = map[v1.DataMovementStatusResponse_Status]v2.MovementResult{
		v1.DataMovementStatusResponse_SUCCESS:   v2.MovementResult_MOVEMENT_RESULT_SUCCESS,
		v1.DataMovementStatusResponse_FAILED:    v2.MovementResult_MOVEMENT_RESULT_FAILED,
		v1.DataMovementStatusResponse_INVALID:   v2.MovementResult_MOVEMENT_RESULT_INVALID,
		v1.DataMovementStatusResponse_CANCELLED: v2.MovementResult_MOVEMENT_RESULT_CANCELLED,
	}
)

// StatusV2 returns the status of dm in version 2. Unlike version 1 it has
// timestamps, and the message of a pending movement.
func StatusV2(dm *nnf.DataMovement) *v2.MovementStatus {
	if neverStarts(dm) {
		return CancelledV2(dm, dm.DeletionTimestamp.Time)
	}
	return statusV2(dm)
}

func statusV2(dm *nnf.DataMovement) *v2.MovementStatus {
	s := &dm.Status
	state, result, message := progress(dm)
	out := &v2.MovementStatus{
		Uid: dm.Name, BatchUid: dm.Labels[api.LabelBatch], State: statesV2[state], Message: message,
		StartTime: timeV2(s.StartTime), EndTime: timeV2(s.EndTime),
		Source: dm.Spec.Source.Path, Destination: dm.Spec.Destination.Path,
	}
	if state == v1.DataMovementStatusResponse_COMPLETED {
		out.Result = resultsV2[result] // unspecified until the end
	}
	if pending(dm) {
		return out
	}
	out.Restarts = int32(min(max(s.Restarts, 0), 1<<31-1))
	if c := s.CommandStatus; c != nil {
		out.CommandStatus = &v2.CommandStatus{
			Command: c.Command, Progress: c.Progress, LastMessage: c.LastMessage, LastMessageTime: timeV2(c.LastMessageTime),
			Items: c.Items, Directories: c.Directories, Files: c.Files, Links: c.Links, Data: c.Data, Rate: c.Rate, Seconds: c.Seconds,
		}
		if d := c.ElapsedTime.Duration; d > 0 {
			out.CommandStatus.ElapsedTime = durationpb.New(d)
		}
	}
	return out
}

// CancelledV2 returns the status of a movement that was cancelled before its start
// and deleted.
func CancelledV2(dm *nnf.DataMovement, at time.Time) *v2.MovementStatus {
	out := statusV2(dm)
	out.State, out.Result = v2.MovementState_MOVEMENT_STATE_COMPLETED, v2.MovementResult_MOVEMENT_RESULT_CANCELLED
	out.Message, out.EndTime = cancelledEarly, timestamppb.New(at)
	return out
}

// DeletedV2 returns the last status of a movement that was deleted.
func DeletedV2(uid string) *v2.MovementStatus {
	return &v2.MovementStatus{Uid: uid, State: v2.MovementState_MOVEMENT_STATE_COMPLETED, Result: v2.MovementResult_MOVEMENT_RESULT_DELETED}
}

func timeV2(t *nnf.MicroTime) *timestamppb.Timestamp {
	if !isSet(t) {
		return nil
	}
	return timestamppb.New(t.Time)
}
