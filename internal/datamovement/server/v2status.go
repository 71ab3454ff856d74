package server

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

var states2 = map[datamovement.State]pb2.MovementState{
	datamovement.StatePending:    pb2.MovementState_MOVEMENT_STATE_PENDING,
	datamovement.StateStarting:   pb2.MovementState_MOVEMENT_STATE_STARTING,
	datamovement.StateRunning:    pb2.MovementState_MOVEMENT_STATE_RUNNING,
	datamovement.StateCancelling: pb2.MovementState_MOVEMENT_STATE_CANCELLING,
	datamovement.StateCompleted:  pb2.MovementState_MOVEMENT_STATE_COMPLETED,
}

var results2 = map[datamovement.Result]pb2.MovementResult{
	datamovement.ResultSuccess:   pb2.MovementResult_MOVEMENT_RESULT_SUCCESS,
	datamovement.ResultFailed:    pb2.MovementResult_MOVEMENT_RESULT_FAILED,
	datamovement.ResultInvalid:   pb2.MovementResult_MOVEMENT_RESULT_INVALID,
	datamovement.ResultCancelled: pb2.MovementResult_MOVEMENT_RESULT_CANCELLED,
}

// movementStatus says how far a movement is in version 2's words.
func movementStatus(n snapshot) *pb2.MovementStatus {
	if n.dm == nil {
		return &pb2.MovementStatus{Uid: n.uid, State: pb2.MovementState_MOVEMENT_STATE_COMPLETED, Result: pb2.MovementResult_MOVEMENT_RESULT_DELETED}
	}
	dm := n.dm
	a := datamovement.AnswerOf(dm)
	out := &pb2.MovementStatus{
		Uid: n.uid, BatchUid: dm.Labels[api.LabelBatch], Message: a.Message, Restarts: a.Restarts,
		Source: dm.Spec.Source.Path, Destination: dm.Spec.Destination.Path,
		StartTime: timestamp(dm.Status.StartTime), EndTime: timestamp(dm.Status.EndTime),
	}
	if a.Waiting != "" {
		out.Message = a.Waiting
	}
	if n.grave != nil {
		a = datamovement.AnswerCancelled(n.grave.at)
		out.Message, out.EndTime = a.Message, timestamppb.New(n.grave.at)
	}
	// An invalid request says so by its result; it has no other end.
	if datamovement.Completed(dm) {
		a.State = datamovement.StateCompleted
	}
	out.State, out.Result = states2[a.State], results2[a.Result]
	if c := dm.Status.CommandStatus; c != nil {
		out.CommandStatus = &pb2.CommandStatus{
			Command: c.Command, Progress: c.Progress, LastMessage: c.LastMessage, LastMessageTime: timestamp(c.LastMessageTime),
			Items: c.Items, Directories: c.Directories, Files: c.Files, Links: c.Links, Data: c.Data, Rate: c.Rate, Seconds: c.Seconds,
		}
		if c.ElapsedTime.Duration > 0 {
			out.CommandStatus.ElapsedTime = durationpb.New(c.ElapsedTime.Duration)
		}
	}
	return out
}

func timestamp(t *nnf.MicroTime) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Time)
}
