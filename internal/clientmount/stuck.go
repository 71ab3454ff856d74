package clientmount

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// stuckTable remembers commands that outlived their limit although they were
// killed (a process in uninterruptible sleep). As long as one lives, another
// mount or umount of the same path would only pile up behind it.
type stuckTable struct {
	mu sync.Mutex
	by map[string]stuckCommand
}

type stuckCommand struct {
	pid   int
	start string // start time from /proc, against pid reuse
	line  string
	since time.Time
}

func newStuckTable() *stuckTable { return &stuckTable{by: map[string]stuckCommand{}} }

// check returns an error while a command for path hangs.
func (t *stuckTable) check(path string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.by[path]
	if !ok {
		return nil
	}
	if s.start == "" || processStart(s.pid) != s.start {
		delete(t.by, path)
		return nil
	}
	return fmt.Errorf("an earlier command still hangs: pid %d, %q, for %v; it cannot be killed while the kernel waits for the device or server (see /proc/%d/stack)",
		s.pid, s.line, time.Since(s.since).Round(time.Second), s.pid)
}

func (t *stuckTable) add(path string, pid int, line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.by[path] = stuckCommand{pid: pid, start: processStart(pid), line: line, since: time.Now()}
}

// noteStuck remembers an abandoned command and returns err as it is.
func (r *runner) noteStuck(err error) error {
	if ce := (*node.CommandError)(nil); errors.As(err, &ce) && ce.PID > 0 {
		r.stuck.add(r.plan.Path, ce.PID, ce.Line)
		r.log.Error("command hangs and cannot be killed", "command", ce.Line, "pid", ce.PID, daemon.EventID(eventStuck))
	}
	return err
}

// processStart is field 22 of /proc/PID/stat, empty when there is no process.
func processStart(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The command name may hold blanks and brackets; fields count from its end.
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return ""
	}
	return f[19]
}
