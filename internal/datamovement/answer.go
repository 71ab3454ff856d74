package datamovement

import (
	"time"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// State is DataMovementStatusResponse.State by its number.
type State int32

// Numbers of the protocol (contract nnf-dm.md 3).
const (
	StatePending    State = 0
	StateStarting   State = 1
	StateRunning    State = 2
	StateCompleted  State = 3
	StateCancelling State = 4
	StateUnknown    State = 5
)

// Result is DataMovementStatusResponse.Status by its number. Its zero value
// says that the request was invalid, so nobody may forget to set it.
type Result int32

// Numbers of the protocol (contract nnf-dm.md 3).
const (
	ResultInvalid   Result = 0
	ResultNotFound  Result = 1
	ResultSuccess   Result = 2
	ResultFailed    Result = 3
	ResultCancelled Result = 4
	ResultUnknown   Result = 5
)

// Answer is what a caller learns of a movement. Texts are as the wire has them.
type Answer struct {
	State              State
	Result             Result
	Message            string
	Command            *CommandAnswer // nil before the start
	StartTime, EndTime string         // local time, empty when not known
	Restarts           int32
	Waiting            string // why it has not started, for version 2: version 1 says nothing of what is pending
}

// CommandAnswer is what the copying command says of itself.
type CommandAnswer struct {
	Command                          string
	Progress                         int32  // percent, 0 when not known
	ElapsedTime                      string // such as 1m30.25s, empty when zero
	LastMessage, LastMessageTime     string
	Seconds, Data, Rate              string
	Items, Directories, Files, Links int32
}

// Completed tells that nothing will change any more. The rabbit sets no end
// time for an invalid request ("Do better" 10).
func Completed(dm *nnf.DataMovement) bool {
	return dm.Status.State == nnf.MovementFinished || isSet(dm.Status.EndTime)
}

// Started tells that the rabbit has taken the movement up. One that has not is
// never finished by cancelling it ("Do better" 13).
func Started(dm *nnf.DataMovement) bool {
	return dm.Status.State != "" || dm.Status.Status != "" || isSet(dm.Status.StartTime)
}

// AnswerOf returns what the caller gets for dm (contract nnf-dm.md 4.4).
func AnswerOf(dm *nnf.DataMovement) Answer {
	s := &dm.Status
	if !isSet(s.StartTime) && !Completed(dm) && s.Status != nnf.MovementInvalid {
		out := Answer{State: StatePending, Result: ResultUnknown, Waiting: s.Message}
		if dm.Spec.Cancel {
			out.State = StateCancelling
		}
		return out
	}
	out := Answer{
		Message:   s.Message,
		StartTime: timeText(s.StartTime), EndTime: timeText(s.EndTime),
		Restarts: int32(min(max(s.Restarts, 0), 1<<31-1)),
		Command:  commandAnswer(s.CommandStatus),
	}
	var known [2]bool
	out.State, known[0] = stateOf(s.State)
	out.Result, known[1] = resultOf(s.Status)
	// A newer rabbit may say more than we know ("Do better" 30).
	if !known[0] || !known[1] {
		out.Message = joined(out.Message, "the rabbit says state "+quote(s.State)+", status "+quote(s.Status)+", which this version does not know")
	}
	if out.State != StateCompleted && dm.Spec.Cancel {
		out.State = StateCancelling
	}
	return out
}

// AnswerMissing is the answer for a movement that does not exist, or that the
// caller must not know of.
func AnswerMissing() Answer { return Answer{State: StateUnknown, Result: ResultNotFound} }

const cancelledEarly = "cancelled before it was started"

// AnswerCancelled is the answer for a movement that was cancelled before its
// start and is gone since ("Do better" 13).
func AnswerCancelled(at time.Time) Answer {
	return Answer{
		State: StateCompleted, Result: ResultCancelled, Message: cancelledEarly,
		EndTime: v1.TimeText(at), Command: &CommandAnswer{},
	}
}

func stateOf(s string) (State, bool) {
	switch s {
	case "":
		return StateUnknown, true
	case nnf.MovementStarting:
		return StateStarting, true
	case nnf.MovementRunning:
		return StateRunning, true
	case nnf.MovementFinished:
		return StateCompleted, true
	}
	return StateUnknown, false
}

func resultOf(s string) (Result, bool) {
	switch s {
	case "":
		return ResultUnknown, true
	case nnf.MovementFailed:
		return ResultFailed, true
	case nnf.MovementSuccess:
		return ResultSuccess, true
	case nnf.MovementInvalid:
		return ResultInvalid, true
	case nnf.MovementCancelled:
		return ResultCancelled, true
	}
	return ResultUnknown, false
}

func commandAnswer(c *nnf.DataMovementCommandStatus) *CommandAnswer {
	if c == nil {
		return &CommandAnswer{}
	}
	out := &CommandAnswer{
		Command: c.Command, Progress: number32(c.Progress), ElapsedTime: v1.ElapsedText(c.ElapsedTime.Duration),
		LastMessage: c.LastMessage, LastMessageTime: timeText(c.LastMessageTime),
		Seconds: c.Seconds, Data: c.Data, Rate: c.Rate,
		Items: number32(c.Items), Directories: number32(c.Directories), Files: number32(c.Files), Links: number32(c.Links),
	}
	return out
}

func number32(p *int32) int32 {
	if p == nil {
		return 0
	}
	return *p
}

// isSet tells whether the rabbit has written the time, readably.
func isSet(t *nnf.MicroTime) bool { return t != nil && !t.IsZero() }

func timeText(t *nnf.MicroTime) string {
	if !isSet(t) {
		return ""
	}
	return v1.TimeText(t.Time)
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
