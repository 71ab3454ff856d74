package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// helpers are programs that this test binary can be, by DAEMON_TEST_HELPER.
var helpers = map[string]func() int{
	"broken-stderr":   helperBrokenStderr,
	"mount-namespace": helperMountNamespace,
}

// helper runs this binary again as the named program, with its standard output
// caught.
func helper(t *testing.T, name string) (*exec.Cmd, func() string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "DAEMON_TEST_HELPER="+name)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, func() string {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(stdout)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return string(b)
	}
}

// helperBrokenStderr logs into a pipe that nobody reads, as after a restart of
// the journal; a Go program dies of that unless it takes SIGPIPE.
func helperBrokenStderr() int {
	log, _, err := NewLogger(LogOptions{Format: "text"})
	if err != nil {
		return 3
	}
	return Run(context.Background(), Options{Log: log, Main: func(context.Context) error {
		for range 3 {
			log.Info("into the void")
		}
		// What we start must still die of a broken pipe.
		out, err := exec.Command("/bin/sh", "-c", "kill -PIPE $$; echo survived").Output()
		fmt.Printf("child: %q %v\n", out, err)
		return nil
	}})
}

func TestBrokenStandardError(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd, run := helper(t, "broken-stderr")
	cmd.Stderr = w
	if got, want := run(), "child: \"\" signal: broken pipe\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func helperMountNamespace() int {
	same, detail, err := InHostMountNamespace("")
	slog.Info("compared", "detail", detail)
	fmt.Println(same, err)
	return 0
}

// The kernel's own answer, in the namespace of this test and in a private one.
func TestMountNamespaceForReal(t *testing.T) {
	if _, err := os.Stat("/proc/1/mountinfo"); err != nil {
		t.Skipf("the mount table of process 1 is hidden here: %v", err)
	}
	host, err1 := os.Readlink("/proc/1/ns/mnt")
	own, err2 := os.Readlink("/proc/self/ns/mnt")
	if err1 != nil || err2 != nil {
		t.Skipf("only root may see the namespace of process 1: %v", err1)
	}
	_, run := helper(t, "mount-namespace")
	if got, want := run(), fmt.Sprintln(host == own, nil); got != want {
		t.Errorf("in our namespace: got %q, want %q", got, want)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may make a mount namespace")
	}
	cmd, run := helper(t, "mount-namespace")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if got, want := run(), fmt.Sprintln(false, nil); got != want {
		t.Errorf("in a private namespace: got %q, want %q", got, want)
	}
}
