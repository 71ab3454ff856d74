// Program standin replaces the programs of a compute node that a development
// machine does not have: lvs, vgs, lvchange, vgchange, nvme, dlm_tool,
// mount.lustre, mount.gfs2 and mount.xfs (without privileges only). It also
// wraps mount and umount, to log them and to make them fail. Which one it is
// follows from the name that it is called by; its state lies beside it, in
// ../state, so that it needs nothing from the environment.
//
// It must not know the daemons, nor do anything to devices that the
// lab did not make.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

func main() {
	tool := filepath.Base(os.Args[0])
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(125)
	}
	if tool == "standin" && len(os.Args) > 2 {
		switch os.Args[1] {
		case "busy":
			os.Exit(busy(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
		case "node":
			os.Exit(nodeNow(os.Args[2:], os.Stderr))
		}
	}
	// A command that is to outlive its daemon must not end by the pipe to it.
	signal.Ignore(unix.SIGPIPE)
	dir := record.Dir(filepath.Join(filepath.Dir(filepath.Dir(self)), "state"))
	os.Exit(run(dir, tool, os.Args[1:], os.Stdout, os.Stderr))
}

// A toolbox is what a stand-in works with.
type toolbox struct {
	dir            record.Dir
	args           []string
	stdout, stderr io.Writer
	now            func() time.Time
}

// fail prints a line the way the LVM tools do and returns the code.
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

// run logs the call, has its fault if there is one, and does its work.
func run(dir record.Dir, tool string, args []string, stdout, stderr io.Writer) int {
	work, ok := tools[tool]
	if !ok {
		fmt.Fprintf(stderr, "standin: %q is not a program that it replaces\n", tool)
		return 127
	}
	call := record.Call{
		ID: fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()), Tool: tool, Argv: args, Exit: -1,
		Env: environment(), PID: os.Getpid(), PPID: os.Getppid(), Start: time.Now(),
	}
	if err := dir.Append(call); err != nil {
		fmt.Fprintln(stderr, "standin: cannot log the call:", err)
		return 125
	}
	end := func(code int) int {
		call.End, call.Exit = time.Now(), code
		_ = dir.Append(call) // the start is in the log, so the call is not lost
		return code
	}
	fault, err := dir.Take(tool, args)
	if err != nil {
		fmt.Fprintln(stderr, "standin: cannot read the faults:", err)
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

// environment returns the few variables that tests ask about.
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

// busy holds a path in one way until its input ends: cwd (working directory),
// open (an open file), or mmap (a mapping whose file is closed again). It prints one
// line when it holds.
func busy(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) < 2 {
		fmt.Fprintln(stderr, "usage: standin busy cwd|open|mmap PATH")
		return 2
	}
	release, err := hold(args)
	if err != nil {
		fmt.Fprintln(stderr, "standin busy:", err)
		return 1
	}
	fmt.Fprintln(stdout, "holding")
	_, _ = io.Copy(io.Discard, stdin) // ends when the holder should let go
	release()
	return 0
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
	return nil, fmt.Errorf("unknown way to hold: %s", args[0])
}

// misbehave does what the fault says and returns the exit code, 0 when the call may go
// on as usual afterwards.
func misbehave(f *record.Fault, stdout, stderr io.Writer) int {
	if f.KillPID > 0 {
		_ = unix.Kill(f.KillPID, unix.SIGKILL)
	}
	if f.Gate != "" {
		waitFor(f.Gate)
	}
	time.Sleep(f.Delay) // the fault itself
	flood(stdout, f.FloodBytes)
	if f.Report != "" {
		w, err := reportWriter(stdout)
		if err == nil {
			_, err = io.WriteString(w, f.Report)
		}
		if err != nil {
			fmt.Fprintln(stderr, "standin: no report:", err)
		}
	}
	if f.Touch != "" {
		if err := os.WriteFile(f.Touch, nil, 0o644); err != nil {
			fmt.Fprintln(stderr, "standin:", err)
		}
	}
	if f.Stderr != "" {
		fmt.Fprintln(stderr, f.Stderr)
	}
	if f.Grandchild {
		// It inherits the output pipes, leaves the process group and stays.
		child := exec.Command("sleep", "1000000")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			fmt.Fprintln(stderr, "standin: no grandchild:", err)
			return 125
		}
	}
	if f.Hang {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
		for {
			_ = unix.Pause()
		}
	}
	if f.Suicide {
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

// waitFor returns when the file exists. It learns of it from the kernel: the
// stand-ins must not be what makes a measurement slow.
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
