package client

import "time"

// State is how far a copy is.
type State string

// The states of a copy.
const (
	Pending    State = "pending"    // the rabbit has not begun with it
	Starting   State = "starting"   // the rabbit prepares it
	Running    State = "running"    // being copied
	Cancelling State = "cancelling" // its end was asked for
	Completed  State = "completed"  // ended; the result says how
	Unknown    State = "unknown"
)

// Result is how a copy ended; empty before its end.
type Result string

// The results of a copy.
const (
	Success   Result = "success"
	Failure   Result = "failed"
	Refused   Result = "invalid" // the rabbit could make nothing of it
	Cancelled Result = "cancelled"
	Deleted   Result = "deleted" // it was deleted before its end was seen
)

// Movement is one copy. What the daemon does not tell is empty or nil; version 1
// tells less. Texts may hold anything that the copying command wrote.
type Movement struct {
	ID          string `json:"id"`
	Batch       string `json:"batch,omitempty"`
	State       State  `json:"state"`
	Result      Result `json:"result,omitempty"`
	Message     string `json:"message,omitempty"`
	Source      string `json:"source,omitempty"`      // as the rabbit sees it
	Destination string `json:"destination,omitempty"` // likewise

	Percent         *int32     `json:"percent,omitempty"`
	ElapsedSeconds  float64    `json:"elapsed_seconds,omitempty"`
	Rate            string     `json:"rate,omitempty"` // as the command writes it
	Data            string     `json:"data,omitempty"` // likewise
	Left            string     `json:"left,omitempty"` // time left, likewise
	Items           *int32     `json:"items,omitempty"`
	Directories     *int32     `json:"directories,omitempty"`
	Files           *int32     `json:"files,omitempty"`
	Links           *int32     `json:"links,omitempty"`
	Command         string     `json:"command,omitempty"`
	LastMessage     string     `json:"last_message,omitempty"`
	LastMessageTime *time.Time `json:"last_message_time,omitempty"`
	StartTime       *time.Time `json:"start_time,omitempty"`
	EndTime         *time.Time `json:"end_time,omitempty"`
	Restarts        int32      `json:"restarts,omitempty"`
}

// Ended tells that nothing will change any more.
func (m *Movement) Ended() bool { return m.State == Completed }

// Elapsed is how long the command has run.
func (m *Movement) Elapsed() time.Duration {
	return time.Duration(m.ElapsedSeconds * float64(time.Second)).Round(time.Millisecond)
}
