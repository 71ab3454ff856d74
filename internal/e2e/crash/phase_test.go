package crash

import (
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// A phase is the part of a life in which the daemon is killed.
type phase struct {
	name string
	// before brings the life to the point where the phase begins. No daemon
	// runs after it: the one that is started next meets the wish at once, so
	// that all boundaries it passes belong to the phase.
	before func(*life)
	// goal tells whether the object is as wanted; nil is one that is gone.
	goal   func(lab.Object) bool
	mounts bool // the goal is to be mounted
	// check looks at the machine then, and end takes all down.
	check, end func(*life)
	// short phases run no step of a plan.
	short bool
}

// least is how many boundaries a phase must have, so that failpoints cannot
// vanish unseen.
func (p phase) least() int {
	if p.short {
		return 5
	}
	return 20
}

var (
	isMounted   = func(o lab.Object) bool { return o != nil && o.Ready("mounted") }
	isUnmounted = func(o lab.Object) bool { return o != nil && o.Ready("unmounted") }
	isGone      = func(o lab.Object) bool { return o == nil }
)

// mounted lives up to a mounted file system and leaves no daemon.
func mounted(l *life) {
	l.create()
	l.start("")
	l.await(isMounted)
	l.kill()
}

var (
	mountPhase = phase{"mount", (*life).create, isMounted, true, (*life).mountedOnce, (*life).end, false}

	unmountPhase = phase{"unmount", func(l *life) { mounted(l); l.Want(l.name, "unmounted") }, isUnmounted, false, (*life).nothingMounted, (*life).end, false}

	deletePhase = phase{"delete", func(l *life) { mounted(l); l.remove() }, isGone, false, (*life).nothingMounted, (*life).over, false}

	// The mount path changes while the file system is mounted: the old mount
	// has to go and the new one to come.
	movePhase = phase{"move", func(l *life) { mounted(l); l.move() }, isMounted, true, (*life).mountedOnce, (*life).end, false}

	phases = []phase{mountPhase, unmountPhase, deletePhase}
)

// phases of the matrix: those that every type has, and for one with a volume and
// one without also a move and some with two objects.
func (k kind) phases() []phase {
	switch k.name {
	case "gfs2":
		return slices.Concat(phases, []phase{movePhase, joinPhase, releasePhase, lastPhase})
	case "lustre":
		return slices.Concat(phases, []phase{movePhase, leavePhase, lastPhase})
	case hostName.name:
		return []phase{mountPhase}
	}
	return phases
}

// reach waits for the phase's goal and checks the machine.
func (p phase) reach(l *life) {
	l.t.Helper()
	if p.mounts {
		l.settled()
	}
	l.await(p.goal)
	p.check(l)
}
