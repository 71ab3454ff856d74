package mountstate

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// problem returns what is wrong with a mount regardless of its age, or nil. A command that waits in
// the kernel for at least the given time makes it stuck, whatever the state says: the daemon may be
// stopped, or wait for the command. Until then, the mount has the problem that it had before. pid is
// that of the command, or 0.
func (m *Mount) problem(stuck time.Duration, now time.Time) (p *Problem, pid int) {
	p = &Problem{ClientMount: m.ClientMount, Workflow: m.Workflow, Path: m.Path, Since: Known(m.Since)}
	set := func(cause Cause, action Action, does, reason string) {
		p.Cause, p.Action = cause, action
		p.Text = m.subject() + " " + does + lasting(p.Since, now) + colon(reason)
	}
	failure := cmp.Or(m.Failure, new(Failure))
	hanging := m.hanging()
	switch {
	case m.State == Stuck && failure.Kind == "", failure.Kind == FailureStuck, hanging != nil && now.Sub(hanging.Started) >= stuck:
		reason := failure.Text
		if failure.Kind == FailureStuck {
			p.Since = Known(failure.Since)
		}
		if hanging != nil {
			p.Since, pid = Known(hanging.Started), hanging.PID
			reason = hanging.sentence()
		}
		set(CauseStuck, ActionDrain, "stuck", cmp.Or(reason, "a command waits in the kernel"))
	case m.State == Orphan:
		set(CauseOrphan, ActionDrain, "orphaned", "ClientMount "+m.ClientMount+" no longer exists")
	case failure.Kind != "" || m.State == Failed || m.State == Busy:
		if m.Failure != nil {
			p.Since = Known(failure.Since)
		}
		reason := cmp.Or(failure.Text, "attempts fail")
		switch kind := failure.Kind; {
		case kind == FailureDevice && m.Phase == PhaseMount && m.State != Mounted:
			// The rabbit may still attach it, and other nodes may lack theirs for the same reason.
			set(CauseDevice, ActionWait, "without its device", reason)
		case kind == FailureDevice:
			if m.Phase == "" {
				p.Since = nil // no attempt has found this, so the start is not known
			}
			set(CauseDevice, ActionDrain, "without its device", reason)
		case kind == FailureBusy || m.State == Busy:
			if len(m.Holders) > 0 {
				reason = m.holders()
			}
			set(CauseBusy, ActionWait, "busy", reason)
		case kind == FailureAPI:
			set(CauseAPI, ActionWait, "waiting for the API server", reason)
		case kind == FailureRefused:
			set(CauseRefused, ActionNone, "refused", reason)
		default:
			set(CauseFailed, ActionWait, "failing", reason)
		}
	case m.State == Mounting || m.State == Unmounting:
		set(CauseSlow, ActionWait, "running", m.running())
	default:
		return nil, 0
	}
	return p, pid
}

// problem returns what is wrong with the daemon, or nil.
func (d *Daemon) problem(now time.Time) *Problem {
	switch {
	case !d.Running:
		return &Problem{Cause: CauseDaemon, Action: ActionWait, Since: d.Since, Text: "clientmountd not running" + lasting(d.Since, now)}
	case d.API == APIUnreachable || d.API == APIConnecting:
		return &Problem{Cause: CauseAPI, Action: ActionWait, Since: d.APISince, Text: "API server not reached" + lasting(d.APISince, now) + colon(d.APIError)}
	}
	return nil
}

// problem returns what is wrong with the token, or nil.
func (t *Token) problem() *Problem {
	if t == nil {
		return nil
	}
	p := &Problem{Cause: CauseToken, Action: ActionWait, Since: t.Since}
	end := "soon"
	if t.Expires != nil {
		end = "at " + t.Expires.UTC().Format(time.RFC3339)
	}
	switch t.Condition {
	case TokenExpired:
		p.Action, p.Text = ActionDrain, "token expired "+end+colon(t.Hint)
	case TokenFailing:
		p.Text = "token expires " + end + " and cannot be renewed" + colon(cmp.Or(t.Hint, t.Error))
	case TokenUnsaved:
		p.Text = "renewed token not stored" + colon(t.Error)
	default:
		return nil
	}
	return p
}

// Sentence returns the state of a mount as one line, such as "mount of /mnt/nnf/x running for 3m:
// lvchange (pid 12) runs".
func (m *Mount) Sentence(now time.Time) string {
	if p, _ := m.problem(StuckAfter, now); p != nil {
		return text.Clip(text.Line(p.Text), problemLimit)
	}
	return text.Line(m.subject() + " " + string(m.State) + lasting(Known(m.Since), now))
}

// Detail returns what keeps a mount from its desired state, or "".
func (m *Mount) Detail() string {
	hanging := m.hanging()
	switch {
	case hanging != nil:
		return hanging.sentence()
	case m.State == Busy && len(m.Holders) > 0:
		return m.holders()
	case m.Failure != nil:
		return m.Failure.Text
	}
	return m.running()
}

// Sentence returns the state of the daemon as one line if it explains why nothing happens, or "".
func (d *Daemon) Sentence(now time.Time) string {
	if p := d.problem(now); p != nil {
		return text.Clip(text.Line(p.Text), problemLimit)
	}
	return ""
}

// subject names a mount in a sentence. A long path is shortened in the middle.
func (m *Mount) subject() string {
	path := m.Path
	if len(path) > pathLimit {
		end := path[len(path)-pathLimit/2:]
		path = text.Clip(path, pathLimit/2) + strings.ToValidUTF8(end, "")
	}
	return cmp.Or(m.Phase, PhaseMount) + " of " + path
}

// hanging returns the command that waits in the kernel for the longest time, or nil.
func (m *Mount) hanging() (found *Command) {
	for i := range m.Commands {
		if c := &m.Commands[i]; c.Kernel && (found == nil || c.Started.Before(found.Started)) {
			found = c
		}
	}
	return found
}

func (m *Mount) running() string {
	if len(m.Commands) == 0 {
		return ""
	}
	return m.Commands[0].sentence()
}

// holders names the first holder of a mount, and how many others there are.
func (m *Mount) holders() string {
	reason := "in use by " + m.Holders[0].Text
	if n := len(m.Holders) - 1; n > 0 {
		reason += fmt.Sprintf(" and %d more", n)
	}
	return reason
}

func (c *Command) sentence() string {
	does := "runs"
	if c.Kernel {
		does = "waits in the kernel"
		if c.Waits != "" {
			does += " (" + c.Waits + ")"
		}
	}
	return fmt.Sprintf("%s (pid %d) %s", c.Program, c.PID, does)
}

// Age returns a duration with one unit: 45s, 16m, 3h, 12d.
func Age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// clockStep is by how much a clock may be set back without an effect on reports.
const clockStep = time.Minute

// inFuture reports whether a time is in the future, because the clock was set back since.
func inFuture(t, now time.Time) bool { return t.Sub(now) > clockStep }

// lasting returns " for 16m", or "" if the start is not known.
func lasting(since *time.Time, now time.Time) string {
	if since == nil || inFuture(*since, now) {
		return ""
	}
	return " for " + Age(now.Sub(*since))
}

func colon(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// Known returns nil for the zero time.
func Known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
