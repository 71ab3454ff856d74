package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// A program with a lab leaves nothing behind, however it exits. The program is this
// test binary in nested namespaces.
func TestNothingIsLeft(t *testing.T) {
	newLab(t).Close() // builds the fake tools, and tests that a second lab is possible afterwards
	tests := []struct {
		name, role string
		end        func(outer *os.Process) error
		code       int
	}{
		{"returns without Close", "return", nil, 0},
		{"panic", "panic", nil, 2},
		{"SIGINT", "wait", func(p *os.Process) error { return p.Signal(unix.SIGINT) }, 130},
		{"SIGTERM", "wait", func(p *os.Process) error { return p.Signal(unix.SIGTERM) }, 130},
		{"SIGKILL", "wait", func(p *os.Process) error { return p.Kill() }, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, err := mountTable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe")
			for _, kv := range os.Environ() {
				if !strings.HasPrefix(kv, "LAB_") || strings.HasPrefix(kv, "LAB_FAKETOOLS=") {
					cmd.Env = append(cmd.Env, kv)
				}
			}
			cmd.Env = append(cmd.Env, "LAB_TEST_ROLE="+tt.role)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var loop int
			var dir, image string
			line, _ := bufio.NewReader(stdout).ReadString('\n')
			if _, err := fmt.Sscanf(line, "volume %d dir %s image %q", &loop, &dir, &image); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if tt.role == "wait" && features.Loop && !attached(loop, image) {
				t.Errorf("loop%d is not attached to %s, so the check below has no effect", loop, image)
			}
			if tt.end != nil {
				if err := tt.end(cmd.Process); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
			// The kernel removes namespaces after it has reported the exit.
			var left []string
			if err := wait.For(soon(t), "the end of it", func() (bool, error) {
				left = nil
				if features.Loop && attached(loop, image) {
					left = append(left, fmt.Sprintf("loop%d", loop))
				}
				for _, p := range processes() {
					if strings.Contains(p.Command, "faketools") || p.PID == cmd.Process.Pid {
						left = append(left, p.Command)
					}
				}
				return len(left) == 0, nil
			}); err != nil {
				t.Fatalf("left behind: %q", left)
			}
			after, err := mountTable()
			if err != nil || !slices.Equal(before, after) {
				t.Errorf("the mount table changed: %v", err)
			}
			if exists(dir) {
				t.Errorf("%s is left on the machine", dir)
			}
		})
	}
}

func attached(loop int, image string) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", loop))
	return image != "" && strings.Contains(string(data), filepath.Base(image))
}

// Close cleans up after a test that leaves mounts, processes and volumes behind.
func TestCloseCleansUp(t *testing.T) {
	l := newLab(t)
	mounts, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	v := l.mustVolume(t, "left", "lv", VolumeOptions{Active: true})
	if err := l.Fault("lvs", Fault{Hang: true, Grandchild: true}); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "lustre", "1@tcp:/left", l.MountBase)
	if _, err := l.Busy(HoldCWD, l.MountBase); err != nil {
		t.Fatal(err)
	}
	hung := exec.Command(filepath.Join(l.Bin, "lvs"))
	if err := hung.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.WaitCall(soon(t), func(c Call) bool { return c.Tool == "lvs" }); err != nil {
		t.Fatal(err)
	}
	left, _ := l.Leftovers()
	for _, want := range []string{"mount 1@tcp:/left", "active volume left/lv", "node " + v.Node, "process "} {
		if !strings.Contains(strings.Join(left, "\n"), want) {
			t.Errorf("Leftovers lacks %q: %q", want, left)
		}
	}
	baseline := l.baseline
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_ = hung.Wait()
	after, _ := mountTable()
	for _, m := range after {
		if !baseline[m.ID] {
			t.Errorf("still mounted: %+v", m)
		}
	}
	if len(after) >= len(mounts) {
		t.Errorf("%d of %d mounts of the lab still exist", len(after), len(mounts))
	}
	for _, p := range processes() {
		t.Errorf("still running: %s", p.Command)
	}
	if attached(v.Loop, v.Image) || exists(l.Dir) {
		t.Error("the loop device or the directory still exists")
	}
}
