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
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// stuckTable lists commands that still run although they were killed at their time limit
// (processes in uninterruptible sleep). While one runs, another command for the same
// purpose would only hang, too. A command has several keys.
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

// check returns an error that wraps node.ErrHangs while a command with one of the keys
// hangs. The text is the same for each retry, so it is reported and logged once.
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
		return fmt.Errorf("%w: pid %d, %q, since %s; it cannot be killed while the kernel waits for a device, server or lock manager (see /proc/%d/stack); if that never responds, drain the node and reboot it",
			node.ErrHangs, s.pid, text.Shorten(s.line, stuckLineLimit), s.since.UTC().Format(time.RFC3339), s.pid)
	}
	return nil
}

// stuckLineLimit bounds the command line in an error, in bytes.
const stuckLineLimit = 500

// add adds a command under all its keys, and removes commands that have exited.
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

// hangs reports whether err means that a command hangs, or was not started because an
// earlier one hangs. An immediate retry then cannot help.
func hangs(err error) bool {
	c := (*node.CommandError)(nil)
	return errors.Is(err, node.ErrHangs) || errors.As(err, &c) && c.PID > 0
}

// Kinds of LVM commands, followed by the volume group in a key. A query takes no lock
// (--nolock): it works while a change waits for the lock manager, and hangs only if the
// devices hang.
const (
	lvmQuery  = "query of "
	lvmChange = "change of "
)

var lvmPrograms = map[string]string{"lvs": lvmQuery, "vgs": lvmQuery, "lvchange": lvmChange, "vgchange": lvmChange, "dmsetup": lvmChange}

const nvmeKey = "program nvme"

// purpose is what a command is started for.
type purpose struct {
	uid   string
	plans []*plan.Plan // empty: the command does not concern a single mount
	// independent is set for commands that must not wait for other commands of the ClientMount,
	// and that are skipped rather than repeated: diagnosis, and the rescan at deletion.
	independent bool
}

// keys returns the keys under which a hanging command is listed. It blocks the next
// command for the same ClientMount or path. An LVM command also blocks those of other
// ClientMounts for the same volume group. nvme and dlm_tool, which do not concern a
// ClientMount, block the same command of any ClientMount.
func (p purpose) keys(program, line string) []string {
	var keys []string
	if !p.independent {
		keys = append(keys, "object "+p.uid)
	}
	for _, plan := range p.plans {
		if !p.independent {
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

// awaited returns the keys that block a command: its own keys, except that nvme for one
// device is blocked by nvme for another device only if independent is set. A hanging query also
// blocks a change.
func (p purpose) awaited(program, line string) []string {
	keys := slices.DeleteFunc(p.keys(program, line), func(key string) bool { return key == nvmeKey && !p.independent })
	if lvmPrograms[program] == lvmChange {
		for _, plan := range p.plans {
			keys = append(keys, lvmQuery+plan.VG)
		}
	}
	return keys
}

// guard starts all programs for a ClientMount, including those of package node. It
// refuses to start a program while an earlier one hangs, marks the programs for the next
// daemon (markOf), and adds those that hang to the table.
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
		g.log.Error("command hangs and cannot be killed", "command", text.Shorten(line, stuckLineLimit), "pid", failed.PID, daemon.EventID(eventStuck))
	}
	return res, err
}

// machineFor returns the node for commands with the purpose p, until ctx ends.
func (r *reconciler) machineFor(ctx context.Context, log *slog.Logger, p purpose) Machine {
	return r.host.For(node.Caller{
		Context: ctx, Limit: r.limits().Command, Exec: &guard{next: r.host, table: r.stuck, log: log, purpose: p},
	})
}

// MarkVariable is the variable in the environment of every command for an object. Its value is the
// uid of the object.
const MarkVariable = "CLIENTMOUNTD_OBJECT"

// markOf returns the variable by which the next daemon finds a command that outlives this one.
// Other users do not know the uid of an object, and only processes of root are considered.
func markOf(uid string) string { return MarkVariable + "=" + uid }

// waitLeftovers waits for commands that an earlier daemon started for the object and
// that outlived it. Otherwise a mount could appear after we have checked the mount table,
// and be made twice, or an umount could remove a mount that we have just found. It is
// called once, and only if there is a record. A command that still runs after its time
// limit is listed as hanging. The error is errInterrupted if the wait was interrupted.
func (t *task) waitLeftovers(rec *Record) error {
	l := t.limits()
	limit := max(l.Command, l.Hook)
	if l.Command == 0 || l.Hook == 0 {
		limit = 0
	}
	left, err := t.host.WaitLeftovers(t.steps, markOf(rec.UID), limit, func(l node.Leftover) {
		t.log.Warn("waiting for a command that an earlier daemon started", "command", l.Line, "pid", l.PID, daemon.EventID(eventStuck))
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
