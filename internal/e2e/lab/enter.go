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

// The program runs three times: outside, as init of the namespaces, and inside as
// itself.
const (
	stageVar    = "LAB_STAGE"
	stageInit   = "init"
	stageInside = "inside"
	reasonVar   = "LAB_REASON" // why the namespaces of root cannot be used

	reportFD = 3 // for the report of init about the namespaces
)

// Enter moves the program into private namespaces. It must be the first call of
// TestMain or main. If it succeeds, it returns only in the inner process; the outer
// process waits, forwards signals and exits with the code of the inner one. Otherwise
// it returns in the original process, with Features.Private false and the reason in
// Why.
func Enter() Features {
	tryPidfd()
	switch os.Getenv(stageVar) {
	case stageInit:
		os.Exit(actAsInit())
	case stageInside:
		return detect()
	}
	why := ""
	for _, user := range []bool{false, true} {
		if !user && os.Geteuid() != 0 {
			continue
		}
		os.Setenv(reasonVar, why)
		code, reason := runInside(user)
		if reason == "" {
			os.Exit(code)
		}
		why = reason
	}
	return Features{Why: why}
}

// tryPidfd makes package os check now whether the kernel supports process file
// descriptors. For the check, package os forks a child that shares our memory and
// signal handlers. A Ctrl-C for the whole process group that reaches this child
// crashes the parent, so the signals are blocked here.
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

// runInside starts init and waits for it. If reason is not empty, the program has not
// run.
func runInside(user bool) (code int, reason string) {
	// The parent-death signal depends on this thread.
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
		return 0, fmt.Sprintf("cannot create private namespaces (user namespace: %t): %v", user, err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	var received atomic.Int32 // the last signal
	go func() {
		for s := range signals {
			received.Store(int32(s.(syscall.Signal)))
			_ = cmd.Process.Signal(s)
		}
	}()
	report, _ := io.ReadAll(read)
	if s := received.Load(); s != 0 {
		// The kernel does not deliver a signal to the first process of a namespace before
		// it has a handler. Signals before its report may be lost, so send it again.
		_ = cmd.Process.Signal(syscall.Signal(s))
	}
	err = cmd.Wait()
	code = cmd.ProcessState.ExitCode()
	// Our own signal of a Ctrl-C for the whole process group may still be pending.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = wait.For(ctx, "the signal", func() (bool, error) { return code != signalExit || received.Load() != 0, nil })
	if s := received.Load(); s != 0 && (code == signalExit || code != 0 && len(report) == 0) {
		return 128 + int(s), "" // before the handler was installed: nothing to clean up, no second attempt
	}
	if text := strings.TrimSpace(string(report)); text != "ready" {
		return 0, fmt.Sprintf("cannot set up the private namespaces: %s (%v)", text, err)
	}
	return code, ""
}

// signalExit is the exit code of the Go runtime for a process that a signal has failed
// to terminate: the first process of a namespace, which the kernel protects, or a
// process that was installing its handler.
const signalExit = 2

// actAsInit sets up the namespaces, starts the program inside and reaps orphans. When
// it exits, the kernel kills the remaining processes.
func actAsInit() int {
	report := os.NewFile(reportFD, "report")
	unix.CloseOnExec(reportFD)
	program, err := os.Executable() // the link in /proc may point outside a new root
	if err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	if err := setUpNamespace(); err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	runtime.LockOSThread()
	os.Setenv(stageVar, stageInside) // replaces the entry; of two entries, the first would be used
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

// Features are the features of the lab that this machine supports.
type Features struct {
	Private       bool // in private namespaces; required
	UserNamespace bool // without privileges: memory file systems replace devices
	Loop          bool // loop devices can be attached
	XFS           bool // a real xfs can be created and mounted
	OwnDev        bool // /dev is private: nodes can be created and removed in it

	// Why describes what is missing, for people. It is empty if nothing is missing.
	Why string
}

// Full reports whether real file systems on real block devices are possible.
func (f Features) Full() bool { return f.Private && f.Loop && f.XFS }

// detect returns the features, in the inner process.
func detect() Features {
	f := Features{Private: true, UserNamespace: os.Getenv(userVar) != "", OwnDev: os.Getenv(devVar) != ""}
	var missing []string
	lack := func(text string) { missing = append(missing, text) }
	if f.UserNamespace {
		text := "not root, so memory file systems replace block devices"
		if reason := os.Getenv(reasonVar); reason != "" {
			text = reason + "; in a user namespace, memory file systems replace block devices"
		}
		lack(text)
	} else if fd, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		lack("no loop devices: /dev/loop-control: " + err.Error())
	} else {
		_ = unix.Close(fd)
		f.Loop = true
	}
	known, _ := os.ReadFile("/proc/filesystems")
	_, err := exec.LookPath("mkfs.xfs")
	switch {
	case f.UserNamespace:
	case err != nil:
		lack("mkfs.xfs is not installed (package xfsprogs)")
	case !strings.Contains(string(known), "\txfs\n"):
		lack("the kernel does not support xfs (modprobe xfs)")
	default:
		f.XFS = f.Loop
	}
	f.Why = strings.Join(missing, "; ")
	return f
}
