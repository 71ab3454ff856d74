package datamovement

import (
	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
)

// WorkflowV1 returns the workflow that a message of version 1 names. Early
// clients send none.
func WorkflowV1(w *v1.DataMovementWorkflow) WorkflowRef {
	return WorkflowRef{Name: w.GetName(), Namespace: w.GetNamespace()}
}

// RequestV1 returns a version 1 Create as a Request. key comes from beside the
// message, for version 1 has no field for it.
func RequestV1(r *v1.DataMovementCreateRequest, key string) Request {
	return Request{
		Workflow: WorkflowV1(r.GetWorkflow()),
		Source:   r.GetSource(), Destination: r.GetDestination(),
		Dryrun:     r.GetDryrun(),
		DCPOptions: r.GetDcpOptions(), MPIRunOptions: r.GetMpirunOptions(),
		LogStdout: r.GetLogStdout(), StoreStdout: r.GetStoreStdout(),
		Slots: r.GetSlots(), MaxSlots: r.GetMaxSlots(),
		Profile: r.GetProfile(), Key: key,
	}
}

// V1 returns the answer as version 1 has it.
func (a Answer) V1() *v1.DataMovementStatusResponse {
	out := &v1.DataMovementStatusResponse{
		State:   v1.DataMovementStatusResponse_State(a.State),
		Status:  v1.DataMovementStatusResponse_Status(a.Result),
		Message: a.Message, StartTime: a.StartTime, EndTime: a.EndTime,
	}
	if c := a.Command; c != nil {
		out.CommandStatus = &v1.DataMovementCommandStatus{
			Command: c.Command, Progress: c.Progress, ElapsedTime: c.ElapsedTime, LastMessage: c.LastMessage, LastMessageTime: c.LastMessageTime,
		}
	}
	return out
}

// AnswerError is the answer of version 1's Status for an error of which
// InResponse is true.
func AnswerError(err error) Answer {
	f := Explain(err)
	switch {
	case f == nil:
		return Answer{State: StateUnknown, Result: ResultUnknown}
	case f.Kind == ErrNotFound:
		return AnswerMissing()
	case f.Kind == ErrInvalid:
		return Answer{State: StateUnknown, Result: ResultInvalid, Message: f.Error()}
	}
	return Answer{State: StateUnknown, Result: ResultUnknown, Message: f.Error()}
}
