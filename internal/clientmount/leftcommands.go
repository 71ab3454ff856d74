package clientmount

import (
	"context"
	"log/slog"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// markOf is what every command for an object has in its environment, so that it
// is found when the daemon dies before it. An object's uid is not public on the
// node, and only root's processes count.
func markOf(uid string) string { return "CLIENTMOUNTD_OBJECT=" + uid }

// leftCommands waits for commands that an earlier daemon began for the object
// and that outlived it: a mount that comes after we looked would be the second
// one, an umount would take away what we just found in place. It is called
// once, and only when a record tells that there was an earlier daemon. What
// still runs after the time limit that it had is remembered as hanging. The
// result is errSuperseded when the wait was cut short.
func (r *reconciler) leftCommands(waits context.Context, log *slog.Logger, rec *Record) error {
	l := r.limits()
	limit := max(l.Command, l.Hook)
	if l.Command == 0 || l.Hook == 0 {
		limit = 0
	}
	left, err := r.machine.WaitLeft(waits, markOf(rec.UID), limit, func(l node.Left) {
		log.Warn("waiting for a command that an earlier daemon left", "command", l.Line, "pid", l.PID, daemon.EventID(eventStuck))
	})
	if err != nil {
		return errSuperseded
	}
	why := purpose{uid: rec.UID}
	for i := range rec.Mounts {
		why.plans = append(why.plans, &rec.Mounts[i].Plan)
	}
	for _, l := range left {
		log.Error("command of an earlier daemon hangs", "command", l.Line, "pid", l.PID, "limit", limit, daemon.EventID(eventStuck))
		r.stuck.add(l.PID, l.Line, why.keys(l.Program, l.Line)...)
	}
	return nil
}
