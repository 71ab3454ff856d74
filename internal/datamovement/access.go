package datamovement

import (
	"slices"
)

// Caller is who asks, by the kernel's word for the connection. Nothing that the
// caller says of itself is believed.
type Caller struct {
	UID, GID uint32
	PID      int32    // for the audit record alone: numbers are used again
	Groups   []uint32 // supplementary groups, nil when the kernel does not tell
}

// Member tells whether gid is one of the caller's groups.
func (c Caller) Member(gid uint32) bool { return c.GID == gid || slices.Contains(c.Groups, gid) }

// Policy is what the site allows. The zero value is the strictest.
type Policy struct {
	RootMayAll      bool // root acts for any workflow; the copies get the workflow's ids all the same
	AllowRootCopies bool // workflows of user or group 0 may copy, as root on the rabbit
	ListWorkflow    bool // List shows what other computes have started too
}

// Outcome is what a check decides. The zero value refuses, so that a forgotten
// one harms nobody.
type Outcome int

// Outcomes.
const (
	Hidden  Outcome = iota // the caller must not learn that the object exists
	Denied                 // the caller may know that it exists, and is told why
	Allowed                // go on
)

// String returns the outcome in lower case, for the audit record.
func (o Outcome) String() string {
	switch o {
	case Allowed:
		return "allowed"
	case Denied:
		return "denied"
	}
	return "hidden"
}

// Verdict is an outcome and why. Reason goes into the audit record; a caller
// never sees the one of Hidden.
type Verdict struct {
	Outcome Outcome
	Reason  string
}

// Allowed tells whether the caller may go on.
func (v Verdict) Allowed() bool { return v.Outcome == Allowed }

// Err returns what the caller gets: nil when allowed, missing when hidden —
// the very error that is given when the object does not exist — and the reason
// when denied.
func (v Verdict) Err(missing *Fault) error {
	switch v.Outcome {
	case Allowed:
		return nil
	case Denied:
		return NewFault(ErrDenied, ReasonDenied, "%s", v.Reason)
	}
	return missing
}

func allow() Verdict               { return Verdict{Outcome: Allowed} }
func hide(reason string) Verdict   { return Verdict{Hidden, reason} }
func refuse(reason string) Verdict { return Verdict{Denied, reason} }

// overflowID is what the kernel shows for an identity that the daemon's user
// namespace does not know (/proc/sys/kernel/overflowuid): it may be anybody.
const overflowID = 65534

// owns tells whether the caller is the given user, or root where that is enough.
func (p Policy) owns(c Caller, uid int64) bool {
	if c.UID == 0 && p.RootMayAll {
		return true
	}
	return int64(c.UID) == uid && c.UID != overflowID
}
