package clientmount

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// BusyPolicy selects what happens to processes that keep a mount busy when it is to be
// unmounted.
type BusyPolicy string

// The policies. The default is to report, because the processes may have unsaved data.
const (
	BusyReport    BusyPolicy = "report"
	BusyTerminate BusyPolicy = "terminate" // SIGTERM after Busy.Grace
	BusyKill      BusyPolicy = "kill"      // SIGKILL after a second grace as well
)

// Busy is the policy for busy mounts.
type Busy struct {
	Policy BusyPolicy
	// Grace is the time from the first failure of an unmount to SIGTERM, and from SIGTERM
	// to SIGKILL, but then at least killGrace.
	Grace  time.Duration
	MinUID int64 // lowest ID of the users whose processes get signals; 0: UID_MIN of login.defs
}

// killGrace is the shortest time from SIGTERM to SIGKILL.
const killGrace = 5 * time.Second

// Bounds of one attempt to unmount one mount.
const (
	mostUnmounts = 4                // unmount commands
	mostSignals  = 64               // signals, each with a record
	mostSpared   = 16               // records of processes that get no signal
	mostUsers    = 4096             // processes that a search returns
	exitWait     = 10 * time.Second // for the exit of processes after a signal
	signalTime   = time.Second      // for the checks of one process
)

// While processes exit, attempts follow each other after quickPause. This ends quickTime
// after the last signal, and after quickSignals signals, so that a user who starts
// processes all the time does not cause an endless number of records.
const (
	quickPause   = 5 * time.Second
	quickTime    = time.Minute
	quickSignals = 1024
)

// mostKnown is the number of known processes above which those that have exited are
// dropped.
const mostKnown = 1024

// signal returns the signal that a process gets now, or 0 and when it gets the next one
// (zero: never).
func (b Busy) signal(s *userState, now time.Time) (sig unix.Signal, next time.Time) {
	switch {
	case s.terminated.IsZero():
		return unix.SIGTERM, time.Time{}
	case b.Policy != BusyKill || !s.killed.IsZero():
		return 0, time.Time{}
	}
	if next = s.terminated.Add(max(b.Grace, killGrace)); next.After(now) {
		return 0, next
	}
	return unix.SIGKILL, time.Time{}
}

// busyTable has the mounts that are busy. It is not saved: after a restart of the daemon
// the grace starts again.
type busyTable struct {
	mu sync.Mutex
	by map[busyKey]*busyMount
}

type busyKey struct{ uid, path string }

// busyMount is a mount whose unmount has failed because it is in use. Only the worker of
// the object changes it, except for next.
type busyMount struct {
	since   time.Time // first failure
	users   map[node.Process]*userState
	signals int       // signals that were sent
	problem string    // why no process gets a signal, as last logged
	next    time.Time // when the next attempt should start; zero: after the usual pause
}

// userState is what was done about a process that uses the mount. It gets each signal only
// once.
type userState struct {
	terminated, killed time.Time
	spared             string // why it got no signal, as last logged
}

// at returns the state of a busy mount. Without one, it starts now.
func (t *busyTable) at(uid, path string, now time.Time) *busyMount {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := busyKey{uid, path}
	b := t.by[key]
	if b == nil {
		b = &busyMount{since: now, users: map[node.Process]*userState{}}
		t.by[key] = b
	}
	b.next = time.Time{}
	return b
}

// forget removes a mount that is no longer busy, or that is to be mounted again.
func (t *busyTable) forget(uid, path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, busyKey{uid, path})
}

// schedule makes the next attempt start at this time, if no earlier time is scheduled.
func (t *busyTable) schedule(b *busyMount, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.next.IsZero() || at.Before(b.next) {
		b.next = at
	}
}

// pause returns the pause before the next attempt for an object: d, or until the earliest
// scheduled time. It drops these times, so that each one shortens only one pause.
func (t *busyTable) pause(uid string, d time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, b := range t.by {
		if key.uid == uid && !b.next.IsZero() {
			d = min(d, max(time.Until(b.next), 0))
			b.next = time.Time{}
		}
	}
	return d
}

// umount runs the unmount command. While the mount is busy, it applies the policy: it
// signals processes, waits for their exit, and repeats the command.
func (r *runner) umount(m node.Mount, argv []string) error {
	e := &ending{runner: r, m: m, o: r.limits.Busy, signals: mostSignals, records: mostSpared}
	for tries := 1; ; tries++ {
		err := r.command(argv)
		if err == nil {
			return nil
		}
		err = r.explainBusy(m, fmt.Errorf("could not unmount file system %s: %w", r.plan.Path, err))
		if !node.IsBusy(err) {
			return err
		}
		again := e.run()
		switch {
		case !again:
			return err
		case r.interrupted():
			return errInterrupted
		case tries == mostUnmounts:
			return err
		}
	}
}

// ending is one attempt to end the processes that keep a mount busy.
type ending struct {
	*runner
	m                node.Mount
	o                Busy
	b                *busyMount
	signals, records int // how many may still follow
}

// run applies the policy once. It returns whether to run the unmount command again now.
func (e *ending) run() (again bool) {
	now := time.Now()
	e.b = e.busy.at(e.uid, e.plan.Path, now)
	if e.o.Policy != BusyTerminate && e.o.Policy != BusyKill {
		return false
	}
	if due := e.b.since.Add(e.o.Grace); due.After(now) {
		e.busy.schedule(e.b, due)
		return false
	}
	users, rule, err := e.find()
	if err != nil {
		if e.ctx.Err() == nil && !errors.Is(err, node.ErrNoUser) && e.b.problem != err.Error() {
			e.b.problem = err.Error()
			e.log.Warn("no process that keeps the mount busy gets a signal", "reason", e.b.problem, daemon.EventID(eventNotSignalled))
		}
		return false
	}
	e.b.problem = ""
	e.dropExited()
	var exits []node.Process // processes that should exit soon
	var kill time.Time       // when the next process gets SIGKILL
	for _, h := range users {
		s := e.b.users[h.Process()]
		if s == nil {
			s = new(userState)
		}
		sig, next := e.o.signal(s, now)
		if sig != 0 {
			if e.signals == 0 {
				e.soon()
				break
			}
			if !e.send(h, s, sig, rule, now) {
				continue
			}
			_, next = e.o.signal(s, now)
		}
		if now.Sub(s.last()) < quickTime {
			exits = append(exits, h.Process())
		}
		if !next.IsZero() && (kill.IsZero() || next.Before(kill)) {
			kill = next
		}
	}
	return e.await(exits, kill)
}

// find returns the processes that prevent the unmount, and the rule for signals.
func (e *ending) find() ([]node.Holder, node.SignalRule, error) {
	rule := node.SignalRule{MinUID: uint32(e.o.MinUID), Mark: MarkVariable + "="}
	if rule.MinUID == 0 {
		var err error
		if rule.MinUID, err = e.machine.MinUID(); err != nil {
			return nil, rule, fmt.Errorf("cannot determine which users are ordinary users: %w", err)
		}
	}
	users, err := findHolders(e.ctx, mostUsers, func(ctx context.Context, limit int) ([]node.Holder, error) {
		return e.machine.Users(ctx, e.m, limit)
	})
	if len(users) > 0 {
		err = nil // the next attempt finds the others
	}
	return users, rule, err
}

// send sends a signal and logs it, or logs, once per process and reason, why it cannot.
func (e *ending) send(h node.Holder, s *userState, sig unix.Signal, rule node.SignalRule, now time.Time) bool {
	ctx, cancel := context.WithTimeout(e.ctx, signalTime)
	found, err := e.machine.SignalUser(ctx, e.m, h, sig, rule)
	cancel()
	if errors.Is(err, node.ErrNoUser) {
		return false
	}
	if err != nil {
		reason := err.Error()
		if protected, ok := errors.AsType[*node.ProtectedError](err); ok {
			reason = protected.Reason
		}
		if s.spared != reason && e.records > 0 {
			e.records--
			s.spared = reason
			e.b.users[h.Process()] = s
			e.log.Warn("a process that keeps the mount busy gets no signal", "holder", found.String(), "holder_pid", found.PID, "holder_uid", found.UID,
				"holder_command", found.Command, "holder_kind", found.Kind, "holder_path", found.Path, "holder_unit", found.Unit, "holder_namespace", found.Namespace,
				"reason", reason, daemon.EventID(eventNotSignalled))
		}
		return false
	}
	e.signals--
	e.b.signals++
	e.b.users[h.Process()] = s
	if sig == unix.SIGKILL {
		s.killed = now
	} else {
		s.terminated = now
	}
	reason := fmt.Sprintf("mount.busy is %q, and the mount has been busy for %v", e.o.Policy, now.Sub(e.b.since).Round(time.Second))
	e.log.Warn("sent a signal to a process that keeps the mount busy", "holder", found.String(), "holder_pid", found.PID, "holder_uid", found.UID,
		"holder_command", found.Command, "holder_kind", found.Kind, "holder_path", found.Path, "holder_unit", found.Unit, "holder_namespace", found.Namespace,
		"signal", unix.SignalName(sig), "reason", reason, daemon.EventID(eventSignalled))
	return true
}

// await waits until processes have exited, but not longer than until kill, when a process
// gets SIGKILL. It returns whether they have exited or this time has come. Otherwise it
// schedules the next attempt.
func (e *ending) await(exits []node.Process, kill time.Time) bool {
	began, limit := time.Now(), exitWait
	if !kill.IsZero() {
		limit = min(limit, time.Until(kill))
	}
	if len(exits) > 0 {
		defer e.spent(began)
		if len(e.machine.WaitExit(e.steps, exits, limit)) == 0 || e.interrupted() {
			return true
		}
		e.soon()
	}
	if kill.IsZero() {
		return false
	}
	e.busy.schedule(e.b, kill)
	return !time.Now().Before(kill)
}

// soon schedules the next attempt after quickPause.
func (e *ending) soon() {
	if e.b.signals < quickSignals {
		e.busy.schedule(e.b, time.Now().Add(quickPause))
	}
}

// last returns when the process got its last signal.
func (s *userState) last() time.Time {
	if s.killed.IsZero() {
		return s.terminated
	}
	return s.killed
}

// dropExited drops processes that have exited if very many are known.
func (e *ending) dropExited() {
	if len(e.b.users) <= mostKnown {
		return
	}
	running := e.machine.WaitExit(e.ctx, slices.Collect(maps.Keys(e.b.users)), 0)
	maps.DeleteFunc(e.b.users, func(p node.Process, _ *userState) bool { return !slices.Contains(running, p) })
}
