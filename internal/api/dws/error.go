package dws

import "errors"

// Severity determines how a workload manager handles an error: it reports Minor as
// waiting and Major as a transient condition, and ends the job on Fatal.
type Severity string

// Severities, in ascending order.
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

// ResourceError is status.error. As a Go error its text is the debug message, and it
// wraps its cause.
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

// WrapError prefixes the message of err with text and ": "; an empty text adds nothing.
// A structured error keeps its type, severity and user message; any other error becomes
// Internal and Minor. The severity of the result is at least least. WrapError returns
// nil for nil.
func WrapError(least Severity, text string, err error) *ResourceError {
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
	if rank(least) > rank(out.Severity) {
		out.Severity = least
	}
	if text != "" {
		out.DebugMessage = text + ": " + out.DebugMessage
	}
	return out
}

// SameAs reports whether two errors are equal, except for their causes.
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
