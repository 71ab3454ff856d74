package crash

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// What happens to a command that runs while its daemon is killed.
var fates = []struct {
	name  string
	fault lab.Fault
	late  bool // it continues only when the next daemon has found it
}{
	{"has done its work, and keeps running", lab.Fault{After: true}, true},
	{"does its work before the next daemon starts", lab.Fault{}, false},
	{"does its work after the next daemon has started", lab.Fault{}, true},
	{"is killed with the daemon", lab.Fault{KillSelf: true}, false},
}

// The daemon is killed while a command runs that changes something. A command has its own
// process group, so it survives unless it is killed as well.
func TestCommands(t *testing.T) {
	total := tally{name: "killed in commands"}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newSet(t, k)
			for _, p := range []phase{mountPhase, unmountPhase} {
				for _, tool := range s.changing(t, p) {
					for _, fate := range fates {
						total.run(t, p.name+"/"+tool+"/"+fate.name, func(t *testing.T) {
							s.killInCommand(t, p, tool, fate.fault, fate.late)
						})
					}
				}
			}
		})
	}
	total.print()
}

// changing returns the programs that a phase runs to change something.
func (s *set) changing(t *testing.T, p phase) (tools []string) {
	t.Helper()
	l := s.newCase(t)
	p.before(l)
	l.forget(t)
	l.start("")
	p.reach(l)
	calls, err := l.Log()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		switch c.Tool {
		case "mount", "umount", "lvchange", "vgchange":
			tools = append(tools, c.Tool)
		}
	}
	if len(tools) == 0 {
		t.Fatal("the phase runs no commands")
	}
	p.end(l)
	return tools
}

func (s *set) killInCommand(t *testing.T, p phase, tool string, fault lab.Fault, late bool) {
	l := s.newCase(t)
	p.before(l)
	l.forget(t)
	barrier, open := l.Barrier(fmt.Sprintf("%s-%s", l.Node, l.name))
	fault.Barrier, fault.Times = barrier, 1
	if err := l.Fault(tool, fault); err != nil {
		t.Fatal(err)
	}
	defer l.ClearFaults()
	defer open()
	l.start("")
	call, err := l.WaitCall(l.Context(patience), func(c lab.Call) bool { return c.Tool == tool })
	if err != nil {
		t.Fatal(err)
	}
	running, err := unix.PidfdOpen(call.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(running)
	l.kill()
	release := func() {
		if err := open(); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(running), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
			t.Fatalf("the command does not exit: %v", err)
		}
	}
	if !late {
		release()
	}
	d := l.start("")
	if late {
		found := func(line lab.LogLine) bool {
			return line.Fields["msg"] == "waiting for a command that an earlier daemon started"
		}
		if _, err := d.WaitLog(l.Context(patience), found); err != nil {
			t.Errorf("the next daemon does not wait for the command: %v", err)
		}
		release()
	}
	p.reach(l)
	if n := l.attempts(); n > reconcilesAfterRestart {
		t.Errorf("the goal was reached after %d attempts", n)
	}
	p.end(l)
}
