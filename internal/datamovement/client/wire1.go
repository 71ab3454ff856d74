package client

import (
	"strings"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

var states1 = map[pb.DataMovementStatusResponse_State]State{
	pb.DataMovementStatusResponse_PENDING:    Pending,
	pb.DataMovementStatusResponse_STARTING:   Starting,
	pb.DataMovementStatusResponse_RUNNING:    Running,
	pb.DataMovementStatusResponse_COMPLETED:  Completed,
	pb.DataMovementStatusResponse_CANCELLING: Cancelling,
}

var results1 = map[pb.DataMovementStatusResponse_Status]Result{
	pb.DataMovementStatusResponse_INVALID:   Refused,
	pb.DataMovementStatusResponse_SUCCESS:   Success,
	pb.DataMovementStatusResponse_FAILED:    Failure,
	pb.DataMovementStatusResponse_CANCELLED: Cancelled,
}

// movement1 reads an answer of version 1. The status counts only with the state
// COMPLETED: daemons send INVALID, which is 0, before.
func movement1(uid string, r *pb.DataMovementStatusResponse) (Movement, error) {
	if r.GetState() == pb.DataMovementStatusResponse_UNKNOWN_STATE {
		switch r.GetStatus() {
		case pb.DataMovementStatusResponse_NOT_FOUND:
			return Movement{}, missing(uid)
		case pb.DataMovementStatusResponse_INVALID:
			return Movement{}, &Error{Kind: Invalid, Text: text(r.GetMessage(), 0)}
		}
	}
	m := Movement{
		ID: uid, State: states1[r.GetState()], Message: r.GetMessage(),
		StartTime: time1(r.GetStartTime()), EndTime: time1(r.GetEndTime()),
	}
	if m.State == "" {
		m.State = Unknown
	}
	if m.Ended() {
		m.Result = results1[r.GetStatus()]
	}
	if c := r.GetCommandStatus(); c != nil {
		m.Command, m.LastMessage, m.LastMessageTime = c.GetCommand(), strings.TrimSpace(c.GetLastMessage()), time1(c.GetLastMessageTime())
		if n := c.GetProgress(); n > 0 { // 0 is also "not known"
			m.Percent = &n
		}
		if d, err := time.ParseDuration(c.GetElapsedTime()); err == nil {
			m.ElapsedSeconds = d.Seconds()
		}
	}
	m.fromLastMessage()
	return m, nil
}

func missing(uid string) *Error {
	return &Error{Kind: NotFound, Text: "could not find data movement " + quote(uid), Hint: hints[pb2.ErrorReason_MOVEMENT_NOT_FOUND]}
}

// time1 reads a time as version 1 writes it, in the zone of the daemon; nil for
// anything else.
func time1(s string) *time.Time {
	t, err := time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", s)
	if err != nil {
		return nil
	}
	return &t
}
