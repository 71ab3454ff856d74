// Program faketools replaces the programs of a compute node that a development machine
// does not have: lvs, vgs, lvchange, vgchange, nvme, dlm_tool, mount.lustre, mount.gfs2
// and mount.xfs (only without privileges). It also wraps mount and umount, to log their
// calls and to make them fail. It acts as the program by whose name it is called. Its
// state is in the directory ../state of the program, so that it does not depend on the
// environment.
//
// It must not know the daemons, and must not change devices that the lab did not create.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
)

func main() {
	tool := filepath.Base(os.Args[0])
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faketools:", err)
		os.Exit(125)
	}
	if tool == "faketools" && len(os.Args) > 2 {
		switch os.Args[1] {
		case "busy":
			os.Exit(busy(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
		case "node":
			os.Exit(nodeNow(os.Args[2:], os.Stderr))
		}
	}
	// A command that outlives its daemon must not be killed by SIGPIPE.
	signal.Ignore(unix.SIGPIPE)
	dir := record.Dir(filepath.Join(filepath.Dir(filepath.Dir(self)), "state"))
	os.Exit(run(dir, tool, os.Args[1:], os.Stdout, os.Stderr))
}

// toolbox has the state and the streams of a call.
type toolbox struct {
	dir            record.Dir
	args           []string
	stdout, stderr io.Writer
	now            func() time.Time
}

// fail prints a message to standard error and returns the code.
func (t *toolbox) fail(code int, format string, args ...any) int {
	fmt.Fprintf(t.stderr, format+"\n", args...)
	return code
}

var tools = map[string]func(*toolbox) int{
	"lvs":          (*toolbox).lvs,
	"vgs":          (*toolbox).vgs,
	"lvchange":     (*toolbox).lvchange,
	"vgchange":     (*toolbox).vgchange,
	"nvme":         (*toolbox).nvme,
	"dlm_tool":     (*toolbox).dlmTool,
	"mount":        (*toolbox).mount,
	"umount":       (*toolbox).umount,
	"mount.lustre": (*toolbox).mountLustre,
	"mount.gfs2":   (*toolbox).mountGFS2,
	"mount.xfs":    (*toolbox).mountXFS,
}

// run logs the call, injects its fault if there is one, and runs the tool.
func run(dir record.Dir, tool string, args []string, stdout, stderr io.Writer) int {
	work, ok := tools[tool]
	if !ok {
		fmt.Fprintf(stderr, "faketools: unknown program %q\n", tool)
		return 127
	}
	call := record.Call{
		ID: fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()), Tool: tool, Argv: args, Exit: -1,
		Env: environment(), PID: os.Getpid(), PPID: os.Getppid(), Start: time.Now(),
	}
	if err := dir.Append(call); err != nil {
		fmt.Fprintln(stderr, "faketools: cannot log the call:", err)
		return 125
	}
	end := func(code int) int {
		call.End, call.Exit = time.Now(), code
		_ = dir.Append(call) // the start is already in the log
		return code
	}
	fault, err := dir.Take(tool, args)
	if err != nil {
		fmt.Fprintln(stderr, "faketools: cannot read the faults:", err)
		return end(125)
	}
	t := &toolbox{dir: dir, args: args, stdout: stdout, stderr: stderr, now: time.Now}
	if fault == nil {
		return end(work(t))
	}
	code := 0
	if fault.After {
		code = work(t)
	}
	if bad := misbehave(fault, stdout, stderr); bad != 0 {
		return end(bad)
	}
	if !fault.After {
		code = work(t)
	}
	return end(code)
}

// environment returns the variables that tests check.
func environment() map[string]string {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		switch {
		case k == "PATH", k == "LC_ALL", k == "LANG", strings.HasPrefix(k, "LVM_"), strings.HasPrefix(k, "NNF_"):
			env[k] = v
		}
	}
	return env
}

// busy keeps a path busy until the end of its input: cwd (working directory), open (an
// open file), or mmap (a mapping of a file that is closed again). It prints a line when
// the path is busy. With UID it has the IDs of this user; with "deaf" it ignores SIGTERM.
func busy(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) < 2 {
		fmt.Fprintln(stderr, "usage: faketools busy cwd|open|mmap PATH [UID [deaf]]")
		return 2
	}
	release, err := hold(args)
	if err == nil && len(args) > 2 {
		err = become(args[2])
	}
	if err != nil {
		fmt.Fprintln(stderr, "faketools busy:", err)
		return 1
	}
	if len(args) > 3 && args[3] == "deaf" {
		signal.Ignore(syscall.SIGTERM)
	}
	fmt.Fprintln(stdout, "holding")
	_, _ = io.Copy(io.Discard, stdin) // ends when the path should be released
	release()
	return 0
}

// become changes all user IDs of this process.
func become(uid string) error {
	id, err := strconv.Atoi(uid)
	if err != nil {
		return err
	}
	return syscall.Setresuid(id, id, id)
}

func hold(args []string) (release func(), err error) {
	if args[0] == "cwd" {
		return func() {}, os.Chdir(args[1])
	}
	f, err := os.OpenFile(args[1], os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch args[0] {
	case "open":
		return func() { f.Close() }, nil
	case "mmap":
		defer f.Close()
		if err := f.Truncate(4096); err != nil {
			return nil, err
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, err
		}
		return func() { _ = unix.Munmap(mem) }, nil
	}
	return nil, fmt.Errorf("unknown kind: %s", args[0])
}

// misbehave injects the fault and returns the exit code, or 0 if the call continues
// normally.
func misbehave(f *record.Fault, stdout, stderr io.Writer) int {
	if f.KillPID > 0 {
		_ = unix.Kill(f.KillPID, unix.SIGKILL)
	}
	if f.Barrier != "" {
		waitFor(f.Barrier)
	}
	time.Sleep(f.Delay) // the fault itself
	flood(stdout, f.FloodBytes)
	if f.Report != "" {
		w, err := reportWriter(stdout)
		if err == nil {
			_, err = io.WriteString(w, f.Report)
		}
		if err != nil {
			fmt.Fprintln(stderr, "faketools: no report:", err)
		}
	}
	if f.Touch != "" {
		if err := os.WriteFile(f.Touch, nil, 0o644); err != nil {
			fmt.Fprintln(stderr, "faketools:", err)
		}
	}
	if f.Stderr != "" {
		fmt.Fprintln(stderr, f.Stderr)
	}
	if f.Grandchild {
		// It inherits the output pipes, leaves the process group and does not exit.
		child := exec.Command("sleep", "1000000")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			fmt.Fprintln(stderr, "faketools: no grandchild:", err)
			return 125
		}
	}
	if f.Hang {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
		for {
			_ = unix.Pause()
		}
	}
	if f.KillSelf {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	return f.Exit
}

func flood(w io.Writer, n int64) {
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	for ; n > 0; n -= int64(len(line)) {
		if _, err := w.Write(line[:min(n, int64(len(line)))]); err != nil {
			return
		}
	}
}

// waitFor waits until the file exists. It uses inotify, so that it does not slow down
// measurements.
func waitFor(path string) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return
	}
	buf := make([]byte, 16*(unsafe.Sizeof(unix.InotifyEvent{})+unix.NAME_MAX+1))
	for {
		if _, err := os.Lstat(path); err == nil {
			return
		}
		if _, err := unix.Read(fd, buf); err != nil && err != unix.EINTR {
			return
		}
	}
}
