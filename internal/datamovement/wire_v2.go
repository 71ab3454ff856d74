package datamovement

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// WorkflowV2 returns the workflow that a message of version 2 names.
func WorkflowV2(w *v2.Workflow) WorkflowRef {
	return WorkflowRef{Name: w.GetName(), Namespace: w.GetNamespace()}
}

// StatusV2 returns how far dm is, as version 2 has it. Unlike version 1 it has
// real times, and says why something has not begun.
func StatusV2(dm *nnf.DataMovement) *v2.MovementStatus {
	a, s := AnswerOf(dm), &dm.Status
	out := &v2.MovementStatus{
		Uid: dm.Name, BatchUid: dm.Labels[api.LabelBatch],
		State: statesV2[a.State], Result: resultV2(a),
		Message:   a.Message + a.Waiting, // never both
		StartTime: timeV2(s.StartTime), EndTime: timeV2(s.EndTime), Restarts: a.Restarts,
		Source: dm.Spec.Source.Path, Destination: dm.Spec.Destination.Path,
	}
	if c := s.CommandStatus; c != nil && a.Command != nil {
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

// GoneV2 is the last status of a movement that is no more: how it ended if that
// was cancelled before its start, deleted otherwise.
func GoneV2(uid string, cancelled bool) *v2.MovementStatus {
	out := &v2.MovementStatus{Uid: uid, State: v2.MovementState_MOVEMENT_STATE_COMPLETED, Result: v2.MovementResult_MOVEMENT_RESULT_DELETED}
	if cancelled {
		out.Result, out.Message = v2.MovementResult_MOVEMENT_RESULT_CANCELLED, cancelledEarly
	}
	return out
}

var statesV2 = map[State]v2.MovementState{
	StatePending:    v2.MovementState_MOVEMENT_STATE_PENDING,
	StateStarting:   v2.MovementState_MOVEMENT_STATE_STARTING,
	StateRunning:    v2.MovementState_MOVEMENT_STATE_RUNNING,
	StateCompleted:  v2.MovementState_MOVEMENT_STATE_COMPLETED,
	StateCancelling: v2.MovementState_MOVEMENT_STATE_CANCELLING,
}

// resultV2 is unspecified until the end.
func resultV2(a Answer) v2.MovementResult {
	if a.State != StateCompleted {
		return v2.MovementResult_MOVEMENT_RESULT_UNSPECIFIED
	}
	switch a.Result {
	case ResultSuccess:
		return v2.MovementResult_MOVEMENT_RESULT_SUCCESS
	case ResultFailed:
		return v2.MovementResult_MOVEMENT_RESULT_FAILED
	case ResultInvalid:
		return v2.MovementResult_MOVEMENT_RESULT_INVALID
	case ResultCancelled:
		return v2.MovementResult_MOVEMENT_RESULT_CANCELLED
	}
	return v2.MovementResult_MOVEMENT_RESULT_UNSPECIFIED
}

func timeV2(t *nnf.MicroTime) *timestamppb.Timestamp {
	if !isSet(t) {
		return nil
	}
	return timestamppb.New(t.Time)
}
