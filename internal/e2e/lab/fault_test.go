package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func TestFaults(t *testing.T) {
	l := newLab(t)
	lvs := filepath.Join(l.Bin, "lvs")
	set := func(t *testing.T, f Fault) {
		t.Helper()
		if err := errors.Join(l.ClearFaults(), l.ClearLog(), l.Fault("lvs", f)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("fail N times after a skip", func(t *testing.T) {
		set(t, Fault{Skip: 1, Times: 2, Exit: 5, Stderr: "  injected failure", Match: "--nolock"})
		var codes []int
		for range 5 {
			cmd := exec.Command(lvs, "--nolock")
			out, _ := cmd.CombinedOutput()
			codes = append(codes, cmd.ProcessState.ExitCode())
			if codes[len(codes)-1] == 5 && string(out) != "  injected failure\n" {
				t.Errorf("output %q", out)
			}
		}
		if want := []int{0, 5, 5, 0, 0}; !slices.Equal(codes, want) {
			t.Errorf("codes %v, want %v", codes, want)
		}
		calls, err := l.Log()
		if err != nil || len(calls) != 5 || calls[1].Exit != 5 || calls[4].Exit != 0 || calls[0].End.IsZero() {
			t.Errorf("log %+v %v", calls, err)
		}
	})
	t.Run("flood", func(t *testing.T) {
		set(t, Fault{FloodBytes: 3_000_001, Exit: 1})
		out, _ := exec.Command(lvs).Output()
		if len(out) != 3_000_001 {
			t.Errorf("%d bytes", len(out))
		}
	})
	t.Run("kill itself", func(t *testing.T) {
		set(t, Fault{KillSelf: true})
		cmd := exec.Command(lvs)
		_ = cmd.Run()
		calls, _ := l.Log()
		if cmd.ProcessState.ExitCode() != -1 || len(calls) != 1 || calls[0].Exit != -1 || !calls[0].End.IsZero() {
			t.Errorf("%v %+v", cmd.ProcessState, calls)
		}
	})
	t.Run("kill another process", func(t *testing.T) {
		victim := exec.Command("sleep", "1000")
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		set(t, Fault{KillPID: victim.Process.Pid, After: true})
		if out, err := exec.Command(lvs, "--reportformat", "json").Output(); err != nil || !bytes.Contains(out, []byte("report")) {
			t.Errorf("the tool did not work: %q %v", out, err)
		}
		if err := victim.Wait(); err == nil {
			t.Error("the process was not killed")
		}
	})
	t.Run("hang, ignore SIGTERM, grandchild with the pipe", func(t *testing.T) {
		set(t, Fault{Hang: true, Grandchild: true, Stderr: "hanging"})
		cmd := exec.Command(lvs)
		pipe, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(pipe, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.WaitCall(soon(t), func(c Call) bool { return c.Exit == -1 }); err != nil {
			t.Fatal(err)
		}
		sleeping := func(p process) bool { return p.Command == "sleep 1000000" }
		wait.Until(t, "the grandchild", func() bool { return slices.ContainsFunc(l.strays(), sleeping) })
		ignores := func() bool {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
			var mask uint64
			_, tail, _ := strings.Cut(string(status), "SigIgn:\t")
			_, _ = fmt.Sscanf(tail, "%x", &mask)
			return mask&(1<<(unix.SIGTERM-1)) != 0
		}
		wait.Until(t, "SIGTERM to be ignored", ignores)
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		left, _ := l.Leftovers()
		if !strings.Contains(strings.Join(left, "\n"), "sleep 1000000") {
			t.Errorf("no grandchild: %q", left)
		}
		l.killStrays()
		if data, err := io.ReadAll(pipe); err != nil || len(data) > 0 {
			t.Errorf("the pipe is not closed: %q %v", data, err)
		}
	})
	t.Run("barrier", func(t *testing.T) {
		barrier, open := l.Barrier("one")
		set(t, Fault{Barrier: barrier})
		cmd := exec.Command(lvs)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if c, err := l.WaitCall(soon(t), func(c Call) bool { return c.Tool == "lvs" }); err != nil || c.Exit != -1 {
			t.Fatalf("%+v %v", c, err)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := l.WaitCall(short, func(c Call) bool { return c.Exit == 0 }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the call passed a closed barrier: %v", err)
		}
		if err := open(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if err := l.ClearFaults(); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, l)
}
