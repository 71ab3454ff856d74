package client

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

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

// movement1 converts a response of version 1. The status is significant only with the
// state COMPLETED: daemons send INVALID, which is 0, in other states.
func movement1(uid string, r *pb.DataMovementStatusResponse) (Movement, error) {
	if r.GetState() == pb.DataMovementStatusResponse_UNKNOWN_STATE {
		switch r.GetStatus() {
		case pb.DataMovementStatusResponse_NOT_FOUND:
			return Movement{}, notFound(uid)
		case pb.DataMovementStatusResponse_INVALID:
			return Movement{}, &Error{Kind: Invalid, Text: textOr(r.GetMessage(), 0)}
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
		if n := c.GetProgress(); n > 0 { // 0 can also mean unknown
			m.Percent = &n
		}
		if d, err := time.ParseDuration(c.GetElapsedTime()); err == nil {
			m.ElapsedSeconds = d.Seconds()
		}
	}
	m.fromLastMessage()
	return m, nil
}

func notFound(uid string) error {
	e := &Error{Kind: NotFound, Text: "could not find data movement " + strconv.Quote(uid)}
	return e.with(hints[pb2.ErrorReason_MOVEMENT_NOT_FOUND])
}

// time1 parses a time of version 1, in the time zone of the daemon. It returns nil
// for anything else.
func time1(s string) *time.Time {
	t, err := time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", s)
	if err != nil {
		return nil
	}
	return &t
}

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

// movement2 converts a status of version 2.
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

// copied matches the progress line of dcp:
//
//	Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...
//
// Builds of dcp differ: some add a time stamp before the line, omit the percentage or
// the time left, or use decimal units. The expression fixes the order of the parts, so
// that it does not match text before the line. It limits the length of the numbers,
// and no group matches control characters, because the text comes from another
// program.
var copied = regexp.MustCompile(`\bCopied ([0-9.]{1,20} [kKMGTPE]?i?B)\b` +
	`(?: \(([0-9]{1,3})%\))?` +
	`(?: in [0-9.]{1,20} [a-z]{1,10})?` +
	`(?: \(([0-9.]{1,20} [kKMGTPE]?i?B/s)\))?` +
	`(?: ([0-9.]{1,20} [a-z]{1,10}) left\b)?`)

// fromLastMessage sets the values that only the last line of a running command
// contains: amount, rate, time left, and the percentage if the daemon reports none.
// Values that the daemon reports take precedence, so that all outputs show the same.
// It sets nothing if the copying command writes other lines.
func (m *Movement) fromLastMessage() {
	all := copied.FindAllStringSubmatch(m.LastMessage, -1)
	if len(all) == 0 {
		return
	}
	found := all[len(all)-1] // the latest
	fill := func(to *string, text string) {
		if *to == "" {
			*to = text
		}
	}
	fill(&m.Data, found[1])
	fill(&m.Rate, found[3])
	fill(&m.Left, found[4])
	if n, err := strconv.ParseInt(found[2], 10, 32); err == nil && n <= 100 && m.Percent == nil {
		percent := int32(n)
		m.Percent = &percent
	}
}
