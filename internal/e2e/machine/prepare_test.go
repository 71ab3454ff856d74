package machine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// workspace is a directory with prepare.sh, fakes of the tools that it uses, and a cache.
type workspace struct {
	t   *testing.T
	dir string
}

func newWorkspace(t *testing.T) workspace {
	t.Helper()
	w := workspace{t, t.TempDir()}
	for _, name := range []string{"prepare.sh", "../apt.sh"} {
		script, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		w.write("machine/"+name, string(script))
	}
	w.write("sources", "Suites: some")
	w.tool("id", "echo 0")
	w.tool("dpkg", "echo amd64")
	for _, name := range []string{"mmdebstrap", "mke2fs", "busybox", "cpio", "depmod", "apt-get"} {
		w.tool(name, "exit 0")
	}
	w.tool("apt-cache", "echo '  Depends: linux-image-1'")
	return w
}

func (w workspace) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

func (w workspace) tool(name, body string) { w.write("bin/"+name, "#!/bin/sh\n"+body+"\n") }

func (w workspace) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(w.dir, "machine/prepare.sh"), args...)
	cmd.Env = append(os.Environ(), "PATH="+w.dir+"/bin:"+os.Getenv("PATH"), "XDG_CACHE_HOME="+w.dir+"/cache",
		"MACHINE_SOURCES="+w.dir+"/sources", "NOTE="+w.dir+"/note")
	return cmd
}

func (w workspace) run(args ...string) (out string, code int) {
	w.t.Helper()
	text, err := w.command(args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(text), exit.ExitCode()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text), 0
}

// leftovers returns the complete and incomplete machines in the cache.
func (w workspace) leftovers() []string {
	list, _ := filepath.Glob(filepath.Join(w.dir, "cache/compute-daemons/machine-*"))
	var out []string
	for _, path := range list {
		if !strings.HasSuffix(path, ".lock") {
			out = append(out, path)
		}
	}
	return out
}

func TestNameDependsOnInputs(t *testing.T) {
	w := newWorkspace(t)
	first, _ := w.run("--name")
	if !strings.HasPrefix(first, filepath.Join(w.dir, "cache/compute-daemons/machine-")) {
		t.Fatalf("the name is %q", first)
	}
	w.write("sources", "Suites: other")
	second, _ := w.run("--name")
	script, _ := os.ReadFile("prepare.sh")
	w.write("machine/prepare.sh", string(script)+"# changed\n")
	third, _ := w.run("--name")
	if first == second || second == third {
		t.Errorf("%s, %s, %s: each must differ from the previous one", first, second, third)
	}
}

func TestExistingMachineIsKept(t *testing.T) {
	w := newWorkspace(t)
	name, _ := w.run("--name")
	if err := os.MkdirAll(strings.TrimSpace(name), 0o700); err != nil {
		t.Fatal(err)
	}
	w.tool("apt-get", "echo must not be called; exit 9")
	if out, code := w.run(); code != 0 || out != "" {
		t.Errorf("exit code %d, %s", code, out)
	}
}

func TestUnsupportedHost(t *testing.T) {
	for name, test := range map[string]struct{ tool, body, text string }{
		"no root":       {"id", "echo 1000", "root is required"},
		"other machine": {"dpkg", "echo arm64", "x86_64"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorkspace(t)
			w.tool(test.tool, test.body)
			if out, code := w.run(); code != 3 || !strings.Contains(out, test.text) {
				t.Errorf("exit code %d, %s; want 3 and %q", code, out, test.text)
			}
			if left := w.leftovers(); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestFailureLeavesNoFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: the build needs namespaces, which require root")
	}
	// Unreachable package sources mean that the host is not suitable; other failures are errors.
	for name, test := range map[string]struct {
		update string
		code   int
		text   string
	}{
		"no network": {"exit 100", 3, "do not answer"},
		"other":      {"exit 0", 1, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorkspace(t)
			w.tool("apt-get", `case $1 in update) `+test.update+`;; *) echo E: no kernel >&2; exit 1;; esac`)
			out, code := w.run()
			if code != test.code || !strings.Contains(out, "E: no kernel") || !strings.Contains(out, "kernel …") || !strings.Contains(out, test.text) {
				t.Errorf("exit code %d, %s", code, out)
			}
			if left := w.leftovers(); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// If another process holds the lock of apt, prepare.sh waits, and does not report unreachable
// package sources.
func TestWaitsForThePackageManager(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: the build needs namespaces, which require root")
	}
	w := newWorkspace(t)
	w.tool("apt-get", `case $1 in
		update) n=$(cat "$NOTE" 2>/dev/null); echo "x$n" >"$NOTE"; [ "$n" = xx ] || { echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (x)" >&2; exit 100; } ;;
		*) echo E: no kernel >&2; exit 1 ;;
		esac`)
	t.Setenv("APT_LOCK_PAUSE", "0")
	if out, code := w.run(); code != 1 || strings.Contains(out, "do not answer") || !strings.Contains(out, "waiting up to") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

// A signal stops the build and all processes that it has started.
func TestSignalStopsBuild(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: the build needs namespaces, which require root")
	}
	w := newWorkspace(t)
	w.tool("apt-get", `exec 9>"$NOTE.lock"; flock 9; : >"$NOTE"; sleep 1000`)
	cmd := w.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the start of the build", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "note"))
		return err == nil
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err == nil {
		t.Error("the exit code is 0")
	}
	if left := w.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	// The sleeping process has inherited the lock, and holds it as long as it runs.
	if out, err := exec.Command("flock", "-w", "5", filepath.Join(w.dir, "note.lock"), "true").CombinedOutput(); err != nil {
		t.Errorf("a process still runs: %v %s", err, out)
	}
}
