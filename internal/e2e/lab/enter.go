package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// The same program runs three times: outside, as init of the namespaces, and
// inside as itself.
const (
	stageVar    = "LAB_STAGE"
	stageInit   = "init"
	stageInside = "inside"

	reportFD = 3 // where init tells whether the namespaces are usable
)

// Enter moves the program into namespaces of its own and must come first in
// TestMain or main. Where that works it returns only inside; the outer process
// waits, passes signals on and exits with the inner one's code. Where it does
// not, it returns in the original process with Features.Private false and the
// reason in Why.
func Enter() Features {
	tryPidfd()
	switch os.Getenv(stageVar) {
	case stageInit:
		os.Exit(actAsInit())
	case stageInside:
		return look()
	}
	why := ""
	for _, user := range []bool{false, true} {
		if !user && os.Geteuid() != 0 {
			continue
		}
		code, reason := runInside(user)
		if reason == "" {
			os.Exit(code)
		}
		why = reason
	}
	return Features{Why: why}
}

// tryPidfd has package os find out now whether the kernel knows process file
// descriptors. It forks a child for that, otherwise before the first command,
// which has our memory and our signal handlers: a Ctrl-C for the whole process
// group that reaches the child as well crashes us. Here it cannot reach it.
func tryPidfd() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before) != nil {
		return
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Release()
	}
}

// runInside starts init and waits for it. A reason means that nothing of the
// program ran.
func runInside(user bool) (code int, reason string) {
	// The parent-death signal belongs to this very thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err.Error()
	}
	defer read.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), stageVar+"="+stageInit)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	if user {
		cmd.Env = append(cmd.Env, userVar+"=1")
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return 0, fmt.Sprintf("the kernel allows no private namespaces (user namespace: %t): %v", user, err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	var asked atomic.Int32 // the signal that wants us to end
	go func() {
		for s := range signals {
			asked.Store(int32(s.(syscall.Signal)))
			_ = cmd.Process.Signal(s)
		}
	}()
	report, _ := io.ReadAll(read)
	if s := asked.Load(); s != 0 {
		// The kernel keeps from the first process of a namespace every signal that it
		// has no handler for yet: what came before its report may be lost.
		_ = cmd.Process.Signal(syscall.Signal(s))
	}
	err = cmd.Wait()
	code = cmd.ProcessState.ExitCode()
	// Our own copy of a Ctrl-C for the whole process group may still be on its way.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = wait.For(ctx, "the signal", func() (bool, error) { return code != unended || asked.Load() != 0, nil })
	if s := asked.Load(); s != 0 && (code == unended || code != 0 && len(report) == 0) {
		return 128 + int(s), "" // too early for a handler: nothing to clean up, and no second try
	}
	if text := strings.TrimSpace(string(report)); text != "ready" {
		return 0, fmt.Sprintf("the private namespaces cannot be furnished: %s (%v)", text, err)
	}
	return code, ""
}

// unended is the exit code by which Go's runtime ends a process that a signal has
// failed to end: the first of a namespace, which the kernel protects, or one that
// was installing its handler in that moment.
const unended = 2

// actAsInit furnishes the namespaces, starts the program inside and reaps
// whatever is orphaned. When it exits the kernel kills all that is left.
func actAsInit() int {
	report := os.NewFile(reportFD, "report")
	unix.CloseOnExec(reportFD)
	program, err := os.Executable() // its link in /proc may lead out of a new root
	if err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	if err := furnish(); err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	runtime.LockOSThread()
	os.Setenv(stageVar, stageInside) // a second entry in the environment would lose against the first
	pid, err := syscall.ForkExec(program, os.Args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		fmt.Fprintln(report, "start inside:", err)
		return 1
	}
	fmt.Fprintln(report, "ready")
	report.Close()
	go func() {
		for s := range signals {
			_ = unix.Kill(pid, s.(syscall.Signal))
		}
	}()
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 1
		case got == pid && status.Signaled():
			return 128 + int(status.Signal())
		case got == pid:
			return status.ExitStatus()
		}
	}
}

// Features says what this machine lets the lab do.
type Features struct {
	Private       bool // in namespaces of our own; nothing works without
	UserNamespace bool // without privileges: memory file systems stand in for devices
	Loop          bool // loop devices can be attached
	XFS           bool // a real xfs can be made and mounted
	OwnDev        bool // /dev is ours: nodes may come and go in it

	// Why is a sentence for people about what is missing; empty when nothing is.
	Why string
}

// Full tells whether real file systems on real block devices are possible.
func (f Features) Full() bool { return f.Private && f.Loop && f.XFS }

// look finds the features from inside.
func look() Features {
	f := Features{Private: true, UserNamespace: os.Getenv(userVar) != "", OwnDev: os.Getenv(devVar) != ""}
	var missing []string
	lack := func(text string) { missing = append(missing, text) }
	if f.UserNamespace {
		lack("there is no root, so memory file systems stand in for block devices")
	} else if fd, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		lack("there is no loop device: /dev/loop-control: " + err.Error())
	} else {
		_ = unix.Close(fd)
		f.Loop = true
	}
	known, _ := os.ReadFile("/proc/filesystems")
	_, err := exec.LookPath("mkfs.xfs")
	switch {
	case f.UserNamespace:
	case err != nil:
		lack("there is no mkfs.xfs (package xfsprogs)")
	case !strings.Contains(string(known), "\txfs\n"):
		lack("the kernel knows no xfs (modprobe xfs)")
	default:
		f.XFS = f.Loop
	}
	f.Why = strings.Join(missing, "; ")
	return f
}
