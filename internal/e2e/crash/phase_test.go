package crash

// A phase is the part of a life in which the daemon is killed.
type phase struct {
	name string
	// before brings the life to the point where the phase begins. No daemon
	// runs after it: the one that is started next meets the wish at once, so
	// that all boundaries it passes belong to the phase.
	before func(*life)
	// turn, if there is one, changes the wish between the crash and the
	// restart.
	turn func(*life)
	// reached waits for the goal and checks it. end takes all down after it.
	reached func(*life)
	end     func(*life)
}

// mounted lives up to a mounted file system and leaves no daemon.
func mounted(l *life) {
	l.create()
	l.start("")
	l.Await(l.name, "mounted")
	l.kill()
}

func awaitMounted(l *life) { l.Await(l.name, "mounted"); l.mountedOnce() }

func awaitUnmounted(l *life) { l.Await(l.name, "unmounted"); l.nothingMounted() }

func awaitDeleted(l *life) { l.awaitGone(); l.nothingMounted() }

func wantUnmounted(l *life) { mounted(l); l.Want(l.name, "unmounted") }

var phases = []phase{
	{name: "mount", before: (*life).create, reached: awaitMounted, end: (*life).end},
	{name: "unmount", before: wantUnmounted, reached: awaitUnmounted, end: (*life).end},
	{name: "delete", before: func(l *life) { mounted(l); l.remove() }, reached: awaitDeleted, end: (*life).over},
}
