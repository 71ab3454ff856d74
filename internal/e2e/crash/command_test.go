package crash

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// What becomes of a command that runs while its daemon is killed.
var fates = []struct {
	name  string
	fault lab.Fault
	late  bool // it is let go only when the next daemon has found it
}{
	{"done already, and lives on", lab.Fault{After: true}, true},
	{"does its work before the next daemon comes", lab.Fault{}, false},
	{"does its work when the next daemon is there", lab.Fault{}, true},
	{"dies with it", lab.Fault{Suicide: true}, false},
}

// The daemon is killed while a command runs that changes something. A command
// has a process group of its own, so it survives unless it is ended as well.
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

// changing lists the programs that a phase runs to change something.
func (s *set) changing(t *testing.T, p phase) (tools []string) {
	t.Helper()
	l := s.life(t)
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
	l := s.life(t)
	p.before(l)
	l.forget(t)
	gate, open := l.Gate(fmt.Sprintf("%s-%s", l.Node, l.name))
	fault.Gate, fault.Times = gate, 1
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
			t.Fatalf("the command does not end: %v", err)
		}
	}
	if !late {
		release()
	}
	d := l.start("")
	if late {
		found := func(line lab.LogLine) bool {
			return line.Fields["msg"] == "waiting for a command that an earlier daemon left"
		}
		if _, err := d.WaitLog(l.Context(patience), found); err != nil {
			t.Errorf("the next daemon does not care about the command: %v", err)
		}
		release()
	}
	p.reach(l)
	if n := l.attempts(); n > reconcilesAfterRestart {
		t.Errorf("the goal was reached after %d attempts", n)
	}
	p.end(l)
}
