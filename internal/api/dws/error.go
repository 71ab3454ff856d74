package dws

import "errors"

// Severity decides what a workload manager does with an error: it shows Minor as
// waiting and Major as a transient condition, and ends the job for Fatal.
type Severity string

// Severities, in rising order.
const (
	Minor Severity = "Minor"
	Major Severity = "Major"
	Fatal Severity = "Fatal"
)

// ErrorType is the party that caused an error.
type ErrorType string

// Error types; Internal unless stated otherwise.
const (
	Internal ErrorType = "Internal"
	User     ErrorType = "User"
	WLM      ErrorType = "WLM"
)

// ResourceError is status.error. It is a Go error whose text is the debug
// message, and it remembers the error that it was made from for errors.Is.
type ResourceError struct {
	Type         ErrorType `json:"type"`
	Severity     Severity  `json:"severity"`
	DebugMessage string    `json:"debugMessage"`
	UserMessage  string    `json:"userMessage,omitempty"`

	cause error
}

// Error returns the debug message.
func (e *ResourceError) Error() string { return e.DebugMessage }

// Unwrap returns the wrapped error, if any.
func (e *ResourceError) Unwrap() error { return e.cause }

// NewError returns an Internal error of the given severity.
func NewError(s Severity, debug string) *ResourceError {
	return &ResourceError{Type: Internal, Severity: s, DebugMessage: debug}
}

// WrapError puts text before the message of err, joined by ": "; empty text
// adds nothing. A structured error keeps its type, severity and user message,
// any other starts as Internal and Minor. Afterwards floor raises the severity
// but never lowers it. A nil err returns nil.
func WrapError(floor Severity, text string, err error) *ResourceError {
	if err == nil {
		return nil
	}
	out := &ResourceError{Type: Internal, Severity: Minor, DebugMessage: err.Error(), cause: err}
	if inner := (*ResourceError)(nil); errors.As(err, &inner) {
		out.Type, out.Severity, out.UserMessage = inner.Type, inner.Severity, inner.UserMessage
		if out.DebugMessage == "" {
			out.DebugMessage = inner.UserMessage
		}
	}
	if rank(floor) > rank(out.Severity) {
		out.Severity = floor
	}
	if text != "" {
		out.DebugMessage = text + ": " + out.DebugMessage
	}
	return out
}

// SameAs tells whether two errors read the same to others.
func (e *ResourceError) SameAs(o *ResourceError) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Type == o.Type && e.Severity == o.Severity &&
		e.DebugMessage == o.DebugMessage && e.UserMessage == o.UserMessage
}

func rank(s Severity) int {
	switch s {
	case Fatal:
		return 2
	case Major:
		return 1
	}
	return 0
}
