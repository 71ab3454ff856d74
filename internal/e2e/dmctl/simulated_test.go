// Package dmctl runs the binary nnf-dmctl, as it is installed, with the binary
// nnf-dm. Its paths through a fake daemon are tested beside its sources.
package dmctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// binary returns a program that make build-daemon has built.
func binary(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(world.Root(t), "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build-daemon", err)
	}
	return path
}

// simulated starts nnf-dm --simulated and returns its socket.
func simulated(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	var log bytes.Buffer
	cmd := exec.Command(binary(t, "nnf-dm"), "--simulated", "--socket="+socket)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the daemon: %v\n%s", err, log.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket
		}
		if time.Now().After(end) {
			t.Fatal("the daemon does not listen")
		}
	}
}

// run runs nnf-dmctl and checks its exit code.
func run(t *testing.T, socket string, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary(t, "nnf-dmctl"), args...)
	cmd.Env = []string{"NNF_DM_SOCKET=" + socket, "DW_WORKFLOW_NAME=job", "DW_WORKFLOW_NAMESPACE=default"}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// The simulated daemon has no version 2: this is also how the program fares
// with the daemons of before.
func TestSimulated(t *testing.T) {
	socket := simulated(t)
	out, _ := run(t, socket, 0, "version")
	if !regexp.MustCompile(`(?m)^nnf-dm \S+ \(API 1\)$`).MatchString(out) {
		t.Errorf("version: %q", out)
	}
	out, errs := run(t, socket, 0, "copy", "--wait", "--store-stdout", "/mnt/a", "/lus/b/")
	if !strings.Contains(out, ": success, 6.755s, 2.000 GiB, 303.182 MiB/s\nRequest ") || !strings.Contains(errs, ": running 50%, 3.139s, 1.000 GiB, 326.217 MiB/s, 3 secs left: Copied") {
		t.Errorf("copy --wait: %q %q", out, errs)
	}
	out, _ = run(t, socket, 0, "copy", "/mnt/a", "/lus/b/")
	id := strings.TrimSpace(out)
	if out, _ = run(t, socket, 0, "status", id); !strings.HasPrefix(out, id+": running 50%") {
		t.Errorf("status: %q", out)
	}
	if out, _ = run(t, socket, 0, "cancel", "--wait", id); !strings.HasPrefix(out, id+": cancelled") {
		t.Errorf("cancel: %q", out)
	}
	run(t, socket, 4, "wait", id)
	out, _ = run(t, socket, 0, "list", "-o", "json")
	var list struct {
		Copies []struct{ ID, State, Result string }
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Copies) != 2 {
		t.Errorf("list: %v %s", err, out)
	}
	run(t, socket, 0, "delete", id)
	if _, errs = run(t, socket, 3, "status", id); !strings.Contains(errs, "could not find data movement") {
		t.Errorf("status of what is deleted: %q", errs)
	}
	run(t, socket, 2, "status", "no-uuid")
	run(t, filepath.Join(filepath.Dir(socket), "nobody"), 7, "list")
}
