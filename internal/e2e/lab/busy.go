package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Ways to keep a mount busy. HoldCWD, HoldOpen and HoldMmap are a process with
// its working directory, an open file or a mapped file there; HoldNested is a
// second mount below; HoldNamespace is a copy of the mount in another mount
// namespace, which lets the unmount succeed but keeps the device.
const (
	HoldCWD       = "cwd"
	HoldOpen      = "open"
	HoldMmap      = "mmap"
	HoldNested    = "nested"
	HoldNamespace = "namespace"
)

// Holder is something that keeps a mount busy.
type Holder struct {
	PID  int    // 0 for a nested mount
	Path string // what is held
	free func() error
}

// Release lets go and returns when the kernel knows.
func (h *Holder) Release() error {
	if h.free == nil {
		return nil
	}
	free := h.free
	h.free = nil
	return free()
}

// Busy keeps the mount at path busy until Release.
func (l *Lab) Busy(kind, path string) (*Holder, error) {
	held := path
	args := []string{"busy", kind, path}
	attr := &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	switch kind {
	case HoldCWD:
	case HoldOpen, HoldMmap:
		held = filepath.Join(path, "held-"+kind)
		args[2] = held
	case HoldNamespace:
		args = []string{"busy", "nothing"}
		attr.Unshareflags = unix.CLONE_NEWNS
	case HoldNested:
		held = filepath.Join(path, "nested")
		if err := os.Mkdir(held, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount("tmpfs", held, "tmpfs", 0, "size=1m"); err != nil {
			return nil, fmt.Errorf("nested mount: %w", err)
		}
		return &Holder{Path: held, free: func() error { return unix.Unmount(held, 0) }}, nil
	default:
		return nil, fmt.Errorf("unknown way to hold a mount: %s", kind)
	}
	cmd := exec.Command(filepath.Join(l.Bin, "standin"), args...)
	cmd.SysProcAttr, cmd.Stderr = attr, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.start(cmd); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("hold %s: %q: %w", path, line, cmd.Wait())
	}
	return &Holder{PID: cmd.Process.Pid, Path: held, free: func() error {
		defer l.alive(cmd.Process.Pid, false)
		stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		return cmd.Wait()
	}}, nil
}
