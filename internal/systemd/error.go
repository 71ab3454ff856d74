package systemd

// Error is a sentence that the software of others may know, so that it keeps its
// form.
type Error string

func (e Error) Error() string { return string(e) }

// What the verbs refuse. Daemons of earlier generations say the same, behind
// "Error:  ", and scripts look for these lines: see Service.Do.
const (
	ErrNotRoot      Error = "You must have root user privileges. Possibly using 'sudo' command should help"
	ErrInstalled    Error = "Service has already been installed"
	ErrNotInstalled Error = "Service is not installed"
	ErrRunning      Error = "Service is already running"
	ErrStopped      Error = "Service has already been stopped"
)
