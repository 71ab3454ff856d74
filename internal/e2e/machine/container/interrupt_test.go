package container

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// After Ctrl-C during a test, nothing is left of its container: no control groups, which belong to
// the host, and no files. The interrupted process is a second instance of this program, in
// namespaces within our own, which the kernel cleans up.
func TestInterrupted(t *testing.T) {
	machine.Need(t)
	fixture.New(t) // skips the test, with the reason, if a lab cannot be created
	temporary := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestInstalled$/^silent")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LAB_") && !strings.HasPrefix(kv, "TMPDIR=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+temporary)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var groups, output []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		output = append(output, lines.Text())
		if _, list, ok := strings.Cut(lines.Text(), "control groups "); ok {
			groups = strings.Fields(list)
		}
		if len(groups) > 0 && strings.Contains(lines.Text(), "/silent") { // during the test
			break
		}
	}
	if len(groups) == 0 {
		t.Errorf("no container has booted: %q", output)
	}
	for _, g := range groups {
		if _, err := os.Stat(g); err != nil {
			t.Error("the following checks would be meaningless: ", err)
		}
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Error(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	for _, g := range groups {
		if _, err := os.Stat(g); !os.IsNotExist(err) {
			t.Errorf("left behind: %s (%v)", g, err)
		}
	}
	if files, err := os.ReadDir(temporary); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
}
