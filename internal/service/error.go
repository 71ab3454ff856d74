package service

import "errors"

// Error is a sentence that the software of others may know, so that it keeps its
// form.
type Error string

func (e Error) Error() string { return string(e) }

// What the verbs refuse (contract deploy.md 2.1).
const (
	ErrNotRoot      Error = "You must have root user privileges. Possibly using 'sudo' command should help"
	ErrInstalled    Error = "Service has already been installed"
	ErrNotInstalled Error = "Service is not installed"
	ErrRunning      Error = "Service is already running"
	ErrStopped      Error = "Service has already been stopped"
)

// hinted is an error and what to look at next.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

func hint(err error, text string) error { return &hinted{err, text} }

func hintOf(err error) string {
	if h, ok := errors.AsType[*hinted](err); ok {
		return h.hint
	}
	return ""
}
