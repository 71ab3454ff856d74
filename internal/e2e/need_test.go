// Package e2e contains the scripts that the targets of the Makefile share. The end-to-end tests
// are in the directories below.
package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
)

// need runs need.sh. PATH contains only a few tools and the fakes, each given as the body of a
// shell script.
func need(t *testing.T, fakes map[string]string, args ...string) (output string, installed string, ok bool) {
	t.Helper()
	bin := t.TempDir()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("need.sh requires bash: ", err)
	}
	for _, tool := range []string{"mktemp", "tail", "rm", "chmod", "cp", "mkdir", "sleep"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for name, body := range fakes {
		if err := executable.Write(filepath.Join(bin, name), []byte("#!"+bash+"\n"+body+"\n")); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bash, append([]string{"./need.sh"}, args...)...)
	log := filepath.Join(bin, "installed")
	cmd.Env = []string{"PATH=" + bin, "BIN=" + bin, "LOG=" + log, "TMPDIR=" + bin, "NEED_BIN=" + bin, "APT_LOCK_PAUSE=0"}
	out, err := cmd.CombinedOutput()
	data, _ := os.ReadFile(log)
	return string(out), strings.TrimSpace(string(data)), err == nil
}

func TestNeed(t *testing.T) {
	const (
		user    = "echo 1000"
		root    = "echo 0"
		manager = `echo "${0##*/} $*" >>"$LOG"`
		works   = manager + `; cp "$BIN/id" "$BIN/no-such-tool"`
		broken  = `echo "E: no network" >&2; exit 100`
		// Messages of apt-get while another process holds the lock of the lists, or of dpkg.
		lists = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)\nE: Unable to lock directory /var/lib/apt/lists/"
		dpkg  = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)\n" +
			"E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?"
		archives = "E: Could not get lock /var/cache/apt/archives/lock. It is held by process 4711 (apt-get)\nE: Unable to lock directory /var/cache/apt/archives/"
		waits    = "apt.sh: another process uses the package manager: Could not get lock "
	)
	const (
		// The package contains the program and is not installed.
		download = "apt-get update -q -o DPkg::Lock::Timeout=20\napt-get download -q prometheus -o DPkg::Lock::Timeout=20\ndpkg-deb --extract prometheus_1_amd64.deb ."
		file     = manager + `; [ "$1" != download ] || : >prometheus_1_amd64.deb`
		extract  = manager + `; mkdir -p usr/bin && cp "$BIN/id" usr/bin/promtool`
	)
	const both = "apt-get update -q -o DPkg::Lock::Timeout=20\napt-get install -qy --no-install-recommends no-such-tool -o DPkg::Lock::Timeout=20"
	// twice makes the first two calls of a command fail, like apt-get.
	twice := func(command, message string) string {
		return `if [ "$1" = ` + command + ` ] && ! [ -e "$BIN/second" ]; then if [ -e "$BIN/first" ]; then : >"$BIN/second"; else : >"$BIN/first"; fi; echo "` + message + `" >&2; exit 100; fi; ` + works
	}
	for name, test := range map[string]struct {
		fakes     map[string]string
		args      []string
		ok        bool
		installed string
		output    []string
	}{
		"nothing missing": {map[string]string{"id": user, "one": "", "two": ""}, []string{"one", "two"}, true, "", nil},
		"no arguments":    {map[string]string{"id": user}, nil, true, "", nil},
		"user": {map[string]string{"id": user, "apt-get": manager, "dnf": manager}, []string{"no-such-one", "no-such-tool"}, false, "",
			[]string{"the command no-such-one is missing; install the package no-such-one (Debian) or no-such-one (RPM)", "the command no-such-tool is missing"}},
		"root, apt": {map[string]string{"id": root, "apt-get": manager}, []string{"no-such-tool"}, false,
			both, []string{"need: installing no-such-tool", "is missing"}},
		"root, apt, broken": {map[string]string{"id": root, "apt-get": broken}, []string{"no-such-tool"}, false, "",
			[]string{"E: no network", "the command no-such-tool is missing"}},
		"root, apt, lists locked":    {map[string]string{"id": root, "apt-get": twice("update", lists)}, []string{"no-such-tool"}, true, both, []string{waits + "/var/lib/apt/lists/lock"}},
		"root, apt, dpkg locked":     {map[string]string{"id": root, "apt-get": twice("install", dpkg)}, []string{"no-such-tool"}, true, both, []string{waits + "/var/lib/dpkg/lock-frontend"}},
		"root, apt, archives locked": {map[string]string{"id": root, "apt-get": twice("install", archives)}, []string{"no-such-tool"}, true, both, []string{waits + "/var/cache/apt/archives/lock"}},
		"root, apt, one program of a package": {map[string]string{"id": root, "apt-get": file, "dpkg-deb": extract}, []string{"promtool"}, true,
			download, []string{"need: installing  promtool"}},
		"root, apt, one program that the package lacks": {map[string]string{"id": root, "apt-get": file, "dpkg-deb": manager}, []string{"promtool"}, false,
			download, []string{"cannot stat 'usr/bin/promtool'", "the command promtool is missing; install the package prometheus (Debian) or /usr/bin/promtool (RPM)"}},
		"root, apt, both": {map[string]string{"id": root, "apt-get": works + `; [ "$1" != download ] || : >prometheus_1_amd64.deb`, "dpkg-deb": extract}, []string{"no-such-tool", "promtool"}, true,
			both + "\n" + strings.SplitN(download, "\n", 2)[1], []string{"need: installing no-such-tool promtool"}},
		"root, dnf": {map[string]string{"id": root, "dnf": manager}, []string{"no-such-tool"}, false, "dnf -y install no-such-tool",
			[]string{"need: installing no-such-tool", "the command no-such-tool is missing"}},
		"root, yum": {map[string]string{"id": root, "yum": manager}, []string{"no-such-tool"}, false, "yum -y install no-such-tool", nil},
		"root, dnf succeeds": {map[string]string{"id": root, "dnf": works}, []string{"no-such-tool"}, true, "dnf -y install no-such-tool",
			[]string{"need: installing no-such-tool"}},
		"root, no package manager": {map[string]string{"id": root}, []string{"no-such-tool"}, false, "", []string{"the command no-such-tool is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []string{"apt-get", "dnf", "microdnf", "yum"} {
				for _, dir := range []string{"/usr/sbin", "/sbin"} { // need.sh searches there, too
					if _, err := os.Stat(filepath.Join(dir, m)); err == nil && test.fakes["id"] == root {
						t.Skip("this machine has a package manager in " + dir)
					}
				}
			}
			out, installed, ok := need(t, test.fakes, test.args...)
			if ok != test.ok || installed != test.installed {
				t.Errorf("ok %v, installed %q, want %v, %q; output: %s", ok, installed, test.ok, test.installed, out)
			}
			for _, s := range test.output {
				if !strings.Contains(out, s) {
					t.Errorf("no %q in the output: %s", s, out)
				}
			}
			if n := strings.Count(out, waits); n > 1 {
				t.Errorf("%d messages about waiting: %s", n, out)
			}
			if len(test.output) == 0 && test.ok && out != "" {
				t.Errorf("unexpected output: %s", out)
			}
		})
	}
}

// If the lock is not released, apt.sh stops waiting and reports the process that holds it.
func TestLockIsNotReleased(t *testing.T) {
	t.Setenv("PATH", fakeTool(t, "apt-get", "echo E: Could not get lock /lists/lock. It is held by process 4711 \\(x\\) >&2; exit 100")+":"+os.Getenv("PATH"))
	cmd := exec.Command("./apt.sh", "update")
	cmd.Env = append(os.Environ(), "APT_LOCK_WAIT=1", "APT_LOCK_PAUSE=0.1")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 100 {
		t.Errorf("%v, want apt-get's exit code 100", err)
	}
	for _, want := range []string{"waiting up to 1 s\n", "error: another process has used the package manager for 1 s: Could not get lock /lists/lock. It is held by process 4711 (x)\n", "apt.sh: hint: "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// Other errors are not retried, and standard output is passed through unchanged.
func TestOtherErrorsOfApt(t *testing.T) {
	t.Setenv("PATH", fakeTool(t, "apt-get", `echo "out $1"; echo "E: Unable to locate package x" >&2; exit 100`)+":"+os.Getenv("PATH"))
	cmd := exec.Command("./apt.sh", "install", "x")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil || string(out) != "out install\n" || stderr.String() != "E: Unable to locate package x\n" {
		t.Errorf("%v, %q, %q", err, out, stderr.String())
	}
}

// fakeTool creates a directory with a fake program and returns it.
func fakeTool(t *testing.T, name, body string) (bin string) {
	t.Helper()
	bin = t.TempDir()
	if err := executable.Write(filepath.Join(bin, name), []byte("#!/bin/sh\n"+body+"\n")); err != nil {
		t.Fatal(err)
	}
	return bin
}

// Runs the real apt-get with directories of this test, while this process holds the lock of the
// package lists like another apt-get.
func TestRealLock(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("this machine has no apt-get: ", err)
	}
	dir := t.TempDir()
	for _, d := range []string{"etc/apt.conf.d", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	configuration := filepath.Join(dir, "apt.conf")
	text := `Dir::Etc "` + dir + `/etc"; Dir::State "` + dir + `/state"; Dir::Cache "` + dir + `/cache"; Dir::State::status "` + dir + `/status"; APT::Sandbox::User "";` + "\n"
	for path, text := range map[string]string{configuration: text, filepath.Join(dir, "status"): "", filepath.Join(dir, "etc/sources.list"): ""} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.Create(filepath.Join(dir, "state/lists/lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./apt.sh", "update", "-q")
	cmd.Env = append(os.Environ(), "APT_CONFIG="+configuration, "APT_LOCK_WAIT=60", "APT_LOCK_PAUSE=0.1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(60*time.Second, func() { cmd.Process.Kill() })
	defer kill.Stop()
	lines := bufio.NewReader(stderr)
	first, err := lines.ReadString('\n')
	if err != nil || !strings.Contains(first, "another process uses the package manager: Could not get lock "+lock.Name()) {
		t.Errorf("%q, %v", first, err)
	}
	if err := lock.Close(); err != nil { // releases the lock
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(lines)
	if err := cmd.Wait(); err != nil {
		t.Errorf("apt.sh failed after the lock was released: %v\n%s%s", err, first, rest)
	}
}
