package node

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func init() {
	if os.Getenv("NODE_TEST_HELPER") == "headless" {
		runtime.LockOSThread() // the main thread, which exits
	}
	helpers["headless"] = func([]string) {
		other := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(other)
			ready()
			os.Exit(0)
		}()
		<-other
		unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	}
	helpers["leave"] = func(args []string) {
		cat := exec.Command("cat", "-")
		cat.Stdin, cat.Env = os.Stdin, []string{args[0]}
		cat.SysProcAttr = &syscall.SysProcAttr{Setpgid: args[1] == "command", Setsid: args[1] == "service"}
		if err := cat.Start(); err != nil {
			panic(err)
		}
	}
}

// leave starts cat as a command or as a service, with a parent that exits immediately like
// a killed daemon. cat exits when it is released, or with the test.
func leave(t *testing.T, mark, how string) (release func()) {
	t.Helper()
	read, write, err := os.Pipe()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	parent := exec.Command(self, mark, how)
	parent.Env = append(os.Environ(), "NODE_TEST_HELPER=leave")
	parent.Stdin = read
	must(t, parent.Run())
	read.Close()
	t.Cleanup(func() { write.Close() })
	return func() { write.Close() }
}

func TestWaitLeftovers(t *testing.T) {
	const mark = "NODE_TEST_MARK=abc-1"
	n := &Node{}
	none := func(l Leftover) { t.Errorf("found %+v", l) }
	if left, err := n.WaitLeftovers(t.Context(), mark, 0, none); err != nil || len(left) > 0 {
		t.Fatalf("%v %v", left, err)
	}
	release := leave(t, mark, "command")
	// The parent continues before the kernel shows the environment of the new program.
	wait.Until(t, "the command is listed", func() bool { return len(n.leftovers(mark)) == 1 })
	for _, other := range []string{"NODE_TEST_MARK=abc-", "NODE_TEST_MARK=abc-12", "TEST_MARK=abc-1", "NODE_TEST_MARK"} {
		if left := n.leftovers(other); len(left) > 0 {
			t.Errorf("%s: %+v", other, left)
		}
	}
	t.Run("still running after the limit", func(t *testing.T) {
		calls := 0
		left, err := n.WaitLeftovers(t.Context(), mark, 10*time.Millisecond, func(Leftover) { calls++ })
		if err != nil || len(left) != 1 || calls != 1 || left[0].PID == 0 || left[0].Program != "cat" || !strings.Contains(left[0].Line, "cat") {
			t.Errorf("%+v %v, %d calls", left, err, calls)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		if _, err := n.WaitLeftovers(ctx, mark, 0, func(Leftover) { cancel(cause) }); !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
	})
	t.Run("waited for", func(t *testing.T) {
		left, err := n.WaitLeftovers(t.Context(), mark, time.Minute, func(Leftover) { release() })
		if err != nil || len(left) > 0 {
			t.Errorf("%+v %v", left, err)
		}
	})
}

// A service that a command has started is a session leader, and a child of this process is
// not a leftover.
func TestWaitLeftoversIgnores(t *testing.T) {
	const mark = "NODE_TEST_MARK=def-2"
	leave(t, mark, "service")
	child := exec.Command("sleep", "60")
	child.Env = append(os.Environ(), mark)
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, child.Start())
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	if !serviceRuns(mark) { // otherwise the check below proves nothing
		t.Fatal("the service does not run")
	}
	if left := (&Node{}).leftovers(mark); len(left) > 0 {
		t.Errorf("%+v", left)
	}
}

func serviceRuns(mark string) bool {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		env, _ := os.ReadFile("/proc/" + d.Name() + "/environ")
		line, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if strings.Contains(string(env), mark+"\x00") && strings.HasPrefix(string(line), "cat\x00") {
			return true
		}
	}
	return false
}

func TestProcessStart(t *testing.T) {
	own := ProcessStart(os.Getpid())
	if own == "" || own != ProcessStart(os.Getpid()) {
		t.Errorf("%q", own)
	}
	if got := ProcessStart(1 << 30); got != "" {
		t.Errorf("no process: %q", got)
	}
	child := exec.Command("true")
	must(t, child.Start())
	wait.Until(t, "a zombie has exited", func() bool { return ProcessStart(child.Process.Pid) == "" })
	must(t, child.Wait())
}

// A process whose main thread has exited is a zombie that may still run.
func TestProcessWithoutMainThread(t *testing.T) {
	const mark = "NODE_TEST_MARK=headless"
	t.Setenv("NODE_TEST_MARK", "headless")
	pid := helper(t, "headless", &syscall.SysProcAttr{Setpgid: true}).Process.Pid
	proc := "/proc/" + strconv.Itoa(pid)
	wait.Until(t, "the main thread exits", func() bool { f, _ := statOf(proc); return f[0] == "Z" })
	n := &Node{}
	if dir, _ := n.running(pid); !strings.HasPrefix(dir, proc+"/task/") || ProcessStart(pid) == "" {
		t.Fatalf("considered as exited: %q", dir)
	}
	if program, line := n.lineOf(pid); !strings.HasSuffix(program, ".test") || line == "" {
		t.Errorf("command line %q of %q", line, program)
	}
	dir, _ := n.running(pid)
	if env, err := os.ReadFile(dir + "/environ"); err != nil || !strings.Contains(string(env), mark+"\x00") {
		t.Errorf("environment %q, %v", env, err)
	}
}
