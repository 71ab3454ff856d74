package lab

import (
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A parent-death signal is sent when the thread that started the child ends,
// not when the process does. So all children start from one thread that lives
// as long as the process.
var starts = func() chan func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
}()

// start starts a command whose process may be there until the caller says
// otherwise.
func (l *Lab) start(cmd *exec.Cmd) error {
	done := make(chan error)
	starts <- func() { done <- cmd.Start() }
	if err := <-done; err != nil {
		return err
	}
	l.alive(cmd.Process.Pid, true)
	return nil
}

// Run runs a command to its end. It may be there meanwhile, and is killed with
// this process.
func (l *Lab) Run(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	if err := l.start(cmd); err != nil {
		return err
	}
	defer l.alive(cmd.Process.Pid, false)
	return cmd.Wait()
}
