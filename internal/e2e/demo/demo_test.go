package main_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

const unprivileged = 65534 // user ID

// The whole demo, as root and as an unprivileged user.
func TestDemo(t *testing.T) {
	dir := programs(t)
	users := []int{os.Getuid()}
	if os.Getuid() == 0 {
		users = append(users, unprivileged)
	}
	for _, uid := range users {
		t.Run(fmt.Sprintf("uid %d", uid), func(t *testing.T) {
			m := takeSnapshot(t)
			d := start(t, dir, uid)
			text := d.rest()
			if code := d.wait(); code != 0 {
				t.Fatalf("exit code %d\n%s", code, text)
			}
			m.same(t, d)
			type line struct{ what, pattern string }
			wants := []line{
				{"the API server", `(?m)^API server +[0-9.]+ m?s https://127\.0\.0\.1:`},
				{"READY", `(?m)^clientmountd +[0-9.]+ m?s READY`},
				{"the object", `desiredState: mounted`},
				{"a step with its time", `(?m)^  activate +[0-9.]+ m?s`},
				{"findmnt", `(?m)^  /\S+ +/dev/mapper/\S+ +(xfs|tmpfs) `},
				{"the file", `(?m)^  written by process`},
				{"the status", `\{"allReady":true,"mounts":\[\{"ready":true,"state":"mounted"\}\]\}`},
				{"the busy unmount and its holder", `target is busy(?s:.*)in use by pid \d+ \(faketools, uid 0[^)]*\): cwd`},
				{"the busy mount in the table of mounts", `(?m)^\$ clientmountd mounts\n  CLIENTMOUNT .*\n  job7-xfs .* busy .* in use by pid \d+`},
				{"the timeline with the mount and the unmount", `(?s)\n\$ clientmountd timeline\n  job7-xfs.* ready after .*\n    mount: .*\n +activate +activate .*\n    unmount: .*\n +unmount +mount [^\n]* tries`},
				{"the unmount", `(?m)^unmounted `},
				{"the stop of the daemon", `(?m)^stopped `},
				{"the job's storage", `(?m)^mounted .* the job's gfs2 at /\S+$`},
				{"nnf-dm", `(?m)^nnf-dm +[0-9.]+ m?s READY`},
				{"the progress of the copy", `(?m)^  nnf-dmctl: nnf-dm-node-\S+: running \d+%`},
				{"the result of the copy", `(?m)^  nnf-dm-node-\S+: success,`},
				{"the comparison", `(?m)^copied .* 33 files, 9 directories, 1 link, .* are equal`},
				{"the second copy, which is cancelled", `(?m)^\$ nnf-dmctl cancel nnf-dm-node-(?s:.*)^  nnf-dm-node-\S+: cancelled`},
				{"its exit code", `(?m)^cancelled +[0-9.]+ m?s exit code 4`},
				{"the cleanup", `(?m)^cleaned up (?s:.*)^nothing left `},
			}
			if uid != 0 {
				wants = append(wants, line{"the differences without root", `(?m)^Without root: `})
			}
			for _, w := range wants {
				if !regexp.MustCompile(w.pattern).MatchString(text) {
					t.Errorf("not on the screen: %s (%s)", w.what, w.pattern)
				}
			}
			if strings.ContainsRune(text, '\x1b') {
				t.Error("the output has colours although it is not a terminal")
			}
			if n := strings.Count(text, "\n"); n > 90 {
				t.Errorf("%d lines, want at most 90", n)
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

// Ctrl-C at any moment leaves nothing behind.
func TestInterrupt(t *testing.T) {
	dir := programs(t)
	type moment struct {
		after time.Duration // after the start; used if line is empty
		line  string        // prefix of an output line
		both  bool          // test as an unprivileged user, too
	}
	moments := []moment{
		{after: 0, both: true}, {after: 3 * time.Millisecond}, {after: 10 * time.Millisecond}, {after: 25 * time.Millisecond, both: true},
		{after: 60 * time.Millisecond}, {after: 400 * time.Millisecond}, {line: "API server", both: true}, {line: "clientmountd "},
		{line: "$ kubectl create"}, {line: "mounted", both: true}, {line: "$ kubectl patch"}, {line: "failed"}, {line: "$ clientmountd mounts"}, {line: "$ clientmountd timeline"}, {line: "unmounted"}, {line: "stopped"},
		{line: "nnf-dm  "}, {line: "$ nnf-dmctl copy --wait"}, {line: "  nnf-dmctl: nnf-dm-node-", both: true}, {line: "copied"},
		{line: "$ nnf-dmctl cancel"}, {line: "cleaned up"},
	}
	for _, uid := range []int{os.Getuid(), unprivileged} {
		for _, at := range moments {
			if uid == unprivileged && (os.Getuid() != 0 || !at.both) {
				continue
			}
			t.Run(fmt.Sprintf("uid %d/%s%v", uid, strings.ReplaceAll(at.line, " ", "_"), at.after), func(t *testing.T) {
				t.Parallel()
				m := takeSnapshot(t)
				d := start(t, dir, uid)
				if at.line == "" {
					wait.Pass(t, at.after, "the time until the interruption")
				} else {
					d.until(at.line)
				}
				d.noteNamespace()
				// A terminal sends the signal to the whole process group.
				if err := unix.Kill(-d.cmd.Process.Pid, unix.SIGINT); err != nil {
					t.Fatal(err)
				}
				text := d.rest()
				code := d.wait()
				if code != 130 && !(at.line == "cleaned up" && code == 0) {
					t.Errorf("exit code %d, want 130\n%s", code, text)
				}
				if strings.Contains(text, "nothing left") && code != 0 {
					t.Error("the demo continued after the interruption")
				}
				m.same(t, d)
			})
		}
	}
}

// If the demo cannot run on the machine, it prints the reason.
func TestImpossible(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("dropping capabilities requires root")
	}
	dir := programs(t)
	// A lab requires capabilities or user namespaces.
	cmd := exec.Command("unshare", "--user", "--map-root-user", "sh", "-c",
		`echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$0"`, filepath.Join(dir, "demo"))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "demo: not possible on this machine: ") {
		t.Errorf("%v: %s", err, out)
	}
}

// demo is one run of the demo.
type demo struct {
	t         *testing.T
	cmd       *exec.Cmd
	screen    *bufio.Reader
	namespace string // PID namespace of its processes, if known
	tmp       string // TMPDIR
}

func start(t *testing.T, dir string, uid int) *demo {
	t.Helper()
	d := &demo{t: t, cmd: exec.Command(filepath.Join(dir, "demo"))}
	d.cmd.Dir = dir
	d.tmp = scratch(t, filepath.Join(dir, "tmp"))
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + d.tmp, "TERM=xterm-256color", "MARK=" + t.Name()}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != os.Getuid() {
		d.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stdout, d.cmd.Stderr = write, write
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	t.Cleanup(func() { read.Close() })
	_ = read.SetReadDeadline(time.Now().Add(3 * time.Minute))
	d.screen = bufio.NewReader(read)
	return d
}

// scratch creates an empty directory that every user can write to.
func scratch(t *testing.T, below string) string {
	t.Helper()
	path, err := os.MkdirTemp(below, "")
	if err == nil {
		err = os.Chmod(path, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	return path
}

// until reads the output up to a line with this prefix.
func (d *demo) until(prefix string) {
	d.t.Helper()
	for {
		line, err := d.screen.ReadString('\n')
		if strings.HasPrefix(line, prefix) {
			return
		}
		if err != nil {
			d.t.Fatalf("no line starts with %q: %v", prefix, err)
		}
	}
}

// rest reads the output until all processes have closed it.
func (d *demo) rest() string {
	d.t.Helper()
	text, err := io.ReadAll(d.screen)
	if err != nil {
		_ = unix.Kill(-d.cmd.Process.Pid, unix.SIGKILL)
		d.t.Fatalf("%v\n%s", err, text)
	}
	return string(text)
}

// wait waits for the process and returns its exit code as a shell reports it.
func (d *demo) wait() int {
	_ = d.cmd.Wait()
	if s := d.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		return 128 + int(s.Signal())
	}
	return d.cmd.ProcessState.ExitCode()
}
