package crash

// Two ClientMounts have the same volume at the same path: l itself and its second.
// The mount is there as long as one of them wants it.
var (
	joinPhase = phase{"mount of the second", func(l *life) { mounted(l); l.second().create(); l.objects = 2 }, isMounted, true, (*life).bothMounted, (*life).endBoth, true}

	releasePhase = phase{"release by the first", func(l *life) { shared(l); l.Want(l.name, "unmounted") }, isUnmounted, false, func(l *life) { l.settledAs(1, 2); l.secondMounted() }, (*life).endBoth, true}

	leavePhase = phase{"deletion of the first", func(l *life) { shared(l); l.remove() }, isGone, false, func(l *life) { l.settledAs(1, 1); l.secondMounted() }, (*life).endSecond, true}

	lastPhase = phase{"unmount by the last", func(l *life) {
		shared(l)
		l.remove()
		l.start("")
		l.await(isGone)
		l.settledAs(1, 1)
		l.kill()
		l.objects = 1
		l.Want(l.second().name, "unmounted")
	}, isGone, false, func(l *life) { l.second().await(isUnmounted); l.nothingMounted() }, (*life).endSecond, false}
)

// second is the life of the other object; daemons are the first one's business.
func (l *life) second() *life {
	o := *l
	o.name += "-second"
	return &o
}

// shared lives up to two objects that share a mount, and leaves no daemon.
func shared(l *life) {
	l.create()
	l.start("")
	l.await(isMounted)
	l.second().create()
	l.second().await(isMounted)
	l.kill()
	l.objects = 2
}

func (l *life) bothMounted() {
	l.t.Helper()
	l.await(isMounted)
	l.secondMounted()
}

// secondMounted checks that the second is ready now, and was not made so again.
func (l *life) secondMounted() {
	l.t.Helper()
	l.second().await(isMounted)
	l.mountedOnce()
}

// endBoth takes both down, the first one first.
func (l *life) endBoth() {
	l.t.Helper()
	l.Want(l.name, "unmounted")
	l.await(isUnmounted)
	l.remove()
	l.await(isGone)
	l.mountedOnce()
	l.endSecond()
}

func (l *life) endSecond() {
	l.t.Helper()
	s := l.second()
	l.Want(s.name, "unmounted")
	s.await(isUnmounted)
	l.nothingMounted()
	s.remove()
	s.await(isGone)
	l.over()
}
