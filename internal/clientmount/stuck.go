package clientmount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// stuckTable remembers commands that outlived their limit although they were
// killed (a process in uninterruptible sleep). As long as one lives, another
// command for the same purpose would only pile up behind it. A command has
// several keys.
type stuckTable struct {
	mu sync.Mutex
	by map[string][]stuckCommand
}

type stuckCommand struct {
	pid   int
	start string // against pid reuse, see node.ProcessStart
	line  string
	since time.Time
}

func newStuckTable() *stuckTable { return &stuckTable{by: map[string][]stuckCommand{}} }

func (s stuckCommand) ended() bool { return s.start == "" || node.ProcessStart(s.pid) != s.start }

// check returns an error that wraps node.ErrHangs while a command with one of
// the keys hangs. Its text does not change from one retry to the next, so that
// it is written and logged once.
func (t *stuckTable) check(keys ...string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		list, ok := t.by[key]
		if !ok {
			continue
		}
		if list = slices.DeleteFunc(list, stuckCommand.ended); len(list) == 0 {
			delete(t.by, key)
			continue
		}
		t.by[key] = list
		s := list[0]
		return fmt.Errorf("%w: pid %d, %q, since %s; it cannot be killed while the kernel waits for a device, server or lock manager (see /proc/%d/stack); if that never answers, drain the node and reboot it",
			node.ErrHangs, s.pid, shorten(s.line, stuckLineLimit), s.since.UTC().Format(time.RFC3339), s.pid)
	}
	return nil
}

// stuckLineLimit bounds the command line in an error, in bytes.
const stuckLineLimit = 500

// add remembers a command under all its keys, and forgets those that ended.
func (t *stuckTable) add(pid int, line string, keys ...string) {
	s := stuckCommand{pid: pid, start: node.ProcessStart(pid), line: line, since: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, list := range t.by {
		if list = slices.DeleteFunc(list, stuckCommand.ended); len(list) == 0 {
			delete(t.by, key)
		} else {
			t.by[key] = list
		}
	}
	for _, key := range keys {
		t.by[key] = append(t.by[key], s)
	}
}

// hangs reports whether err is that of a command that hangs, or that was not
// started because an earlier one does: an immediate retry cannot help.
func hangs(err error) bool {
	c := (*node.CommandError)(nil)
	return errors.Is(err, node.ErrHangs) || errors.As(err, &c) && c.PID > 0
}

// What LVM does with a volume group. A query takes no lock (--nolock): it may work
// while a change waits for the lock manager, and hangs only with the devices.
const (
	lvmQuery  = "query of "
	lvmChange = "change of "
)

var lvmPrograms = map[string]string{"lvs": lvmQuery, "vgs": lvmQuery, "lvchange": lvmChange, "vgchange": lvmChange, "dmsetup": lvmChange}

const nvmeKey = "program nvme"

// purpose is what a command is started for.
type purpose struct {
	uid   string
	plans []*plan.Plan // none: not about one mount
	// apart is for commands that must not wait for others of the ClientMount, and
	// are skipped rather than repeated: diagnosis, and the rescan of a deletion.
	apart bool
}

// keys returns under which keys a command is remembered when it hangs. It delays
// the next command for the same ClientMount or path. A command of LVM also delays
// those of other ClientMounts for the same volume group; nvme and dlm_tool, which
// are not about a ClientMount, delay the same command of any.
func (p purpose) keys(program, line string) []string {
	var keys []string
	if !p.apart {
		keys = append(keys, "object "+p.uid)
	}
	for _, plan := range p.plans {
		if !p.apart {
			keys = append(keys, "path "+plan.Path)
		}
		if does := lvmPrograms[program]; does != "" && plan.VG != "" {
			keys = append(keys, does+plan.VG)
		}
	}
	switch program {
	case "nvme":
		keys = append(keys, "command "+line, nvmeKey)
	case "dlm_tool":
		keys = append(keys, "command "+line)
	}
	return keys
}

// awaited returns which keys keep a command from being started: its own, except
// that nvme for one device waits for nvme for another only if it is apart. A change
// also waits for a query that hangs.
func (p purpose) awaited(program, line string) []string {
	keys := slices.DeleteFunc(p.keys(program, line), func(key string) bool { return key == nvmeKey && !p.apart })
	if lvmPrograms[program] == lvmChange {
		for _, plan := range p.plans {
			keys = append(keys, lvmQuery+plan.VG)
		}
	}
	return keys
}

// guard is the only way to start a program for a ClientMount, for package node
// as well. It refuses while an earlier one hangs, marks what it starts for the
// next daemon, and remembers what hangs.
type guard struct {
	next  node.Runner
	table *stuckTable
	log   *slog.Logger
	purpose
}

func (g *guard) Run(ctx context.Context, c node.Command) (node.Result, error) {
	program, line := "", c.String()
	if len(c.Argv) > 0 {
		program = filepath.Base(c.Argv[0])
	}
	if err := g.table.check(g.awaited(program, line)...); err != nil {
		return node.Result{}, err
	}
	c.Env = append(slices.Clone(c.Env), markOf(g.uid))
	res, err := g.next.Run(ctx, c)
	if failed := (*node.CommandError)(nil); errors.As(err, &failed) && failed.PID > 0 {
		g.table.add(failed.PID, line, g.keys(program, line)...)
		g.log.Error("command hangs and cannot be killed", "command", shorten(line, stuckLineLimit), "pid", failed.PID, daemon.EventID(eventStuck))
	}
	return res, err
}

// machineFor returns the node as it may be used for p until ctx ends.
func (r *reconciler) machineFor(ctx context.Context, log *slog.Logger, p purpose) Machine {
	return r.host.For(node.Caller{
		Context: ctx, Limit: r.limits().Command, Exec: &guard{next: r.host, table: r.stuck, log: log, purpose: p},
	})
}

// markOf is in the environment of every command for an object, so that the next
// daemon finds a command that outlives this one. An object's uid is not public on
// the node, and only root's processes count.
func markOf(uid string) string { return "CLIENTMOUNTD_OBJECT=" + uid }

// waitLeftovers waits for commands that an earlier daemon started for the object
// and that outlived it: a mount that appears after we looked would be the second
// one, an umount would remove what we just found in place. It is called once, and
// only if there is a record, so that there was an earlier daemon. A command that
// still runs after its time limit is remembered as hanging. The result is
// errInterrupted if the wait was cut short.
func (t *task) waitLeftovers(rec *Record) error {
	l := t.limits()
	limit := max(l.Command, l.Hook)
	if l.Command == 0 || l.Hook == 0 {
		limit = 0
	}
	left, err := t.host.WaitLeftovers(t.steps, markOf(rec.UID), limit, func(l node.Leftover) {
		t.log.Warn("waiting for a command that an earlier daemon left", "command", l.Line, "pid", l.PID, daemon.EventID(eventStuck))
	})
	if err != nil {
		return errInterrupted
	}
	why := purpose{uid: rec.UID, plans: rec.plans()}
	for _, l := range left {
		t.log.Error("command of an earlier daemon hangs", "command", l.Line, "pid", l.PID, "limit", limit, daemon.EventID(eventStuck))
		t.stuck.add(l.PID, l.Line, why.keys(l.Program, l.Line)...)
	}
	return nil
}
