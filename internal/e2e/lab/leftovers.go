package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mount is one line of the kernel's mount table.
type Mount struct {
	ID      int
	Device  string // major:minor
	Root    string // what of the file system is mounted; the device for a bound node
	Target  string
	Type    string
	Source  string
	Options string
}

// mountTable reads this process's table. It is written here again, and not
// borrowed from the daemons, because it is what they are judged by.
func mountTable() ([]Mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []Mount
	for line := range strings.Lines(string(data)) {
		head, tail, ok := strings.Cut(line, " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 6 || len(t) < 2 {
			continue
		}
		id, err := strconv.Atoi(h[0])
		if err != nil {
			continue
		}
		list = append(list, Mount{
			ID: id, Device: h[2], Root: unescape(h[3]), Target: unescape(h[4]), Options: h[5],
			Type: t[0], Source: unescape(t[1]),
		})
	}
	return list, nil
}

// unescape decodes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Mounts lists what was mounted since the lab was built, oldest first.
func (l *Lab) Mounts() ([]Mount, error) {
	all, err := mountTable()
	var fresh []Mount
	for _, m := range all {
		bound := strings.HasPrefix(m.Target, l.Mapper+"/") // a node that could only be borrowed
		if !l.baseline[m.ID] && !bound {
			fresh = append(fresh, m)
		}
	}
	return fresh, err
}

// MountAt returns the topmost mount at a path.
func (l *Lab) MountAt(path string) (Mount, bool, error) {
	all, err := l.Mounts()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Target == path {
			return all[i], true, nil
		}
	}
	return Mount{}, false, err
}

// A process is one of this namespace.
type process struct {
	PID     int
	Command string
}

func processes() (list []process) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", d.Name(), "stat"))
		if err != nil {
			continue // gone meanwhile
		}
		// 12 (name) S ...: the name may hold anything, so look from the end.
		head, tail, _ := strings.Cut(string(stat), " (")
		i := strings.LastIndex(tail, ") ")
		if i < 0 || head == "" || strings.ContainsAny(tail[i+2:i+3], "ZX") {
			continue // dead and not yet reaped
		}
		name := tail[:i] // all that there is in the middle of an exec
		if cmd, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline")); len(cmd) > 0 {
			name = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
		}
		list = append(list, process{pid, name})
	}
	return list
}

// strays are processes that neither were here first nor belong to something
// that the test holds.
func (l *Lab) strays() []process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(processes(), func(p process) bool { return l.before[p.PID] || l.pids[p.PID] })
}

// killStrays ends all processes that came into the lab. It is safe
// because the process namespace is ours: no process of the host has a number
// here.
func (l *Lab) killStrays() {
	for range 10 { // what is killed may just have started another
		list := processes()
		list = slices.DeleteFunc(list, func(p process) bool { return l.before[p.PID] })
		if len(list) == 0 {
			return
		}
		for _, p := range list {
			if fd, err := unix.PidfdOpen(p.PID, 0); err == nil {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 2000)
				_ = unix.Close(fd)
			}
		}
	}
}

// Ways to keep a mount busy. HoldCWD, HoldOpen and HoldMmap are a process with
// its working directory, an open file or a mapped file there; HoldNested is a
// second mount below; HoldNamespace is a process in another mount namespace with
// its working directory in the copy of the mount, which lets the unmount succeed
// but keeps the device. The kernel drops a copy that no process uses when the
// target is removed.
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
func (h *Holder) Release() error { return h.free() }

// Busy keeps the mount at path busy until Release.
func (l *Lab) Busy(kind, path string) (*Holder, error) {
	held := path
	args := []string{"busy", kind, path}
	attr := &syscall.SysProcAttr{}
	switch kind {
	case HoldCWD:
	case HoldOpen, HoldMmap:
		held = filepath.Join(path, "held-"+kind)
		args[2] = held
	case HoldNamespace:
		args[1] = HoldCWD
		attr.Unshareflags = unix.CLONE_NEWNS
	case HoldNested:
		held = filepath.Join(path, "nested")
		if err := os.Mkdir(held, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount("tmpfs", held, "tmpfs", 0, "size=1m"); err != nil {
			return nil, fmt.Errorf("nested mount: %w", err)
		}
		return &Holder{Path: held, free: sync.OnceValue(func() error { return unix.Unmount(held, 0) })}, nil
	default:
		return nil, fmt.Errorf("unknown way to hold a mount: %s", kind)
	}
	cmd := exec.Command(filepath.Join(l.Bin, "standin"), args...)
	cmd.SysProcAttr, cmd.Stderr = attr, os.Stderr
	release, err := l.Hold(cmd)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", path, err)
	}
	return &Holder{PID: cmd.Process.Pid, Path: held, free: release}, nil
}

// Hold starts a command that writes a line when it is ready and ends with its
// standard input. Until release has closed that and waited, it may be there; it is
// killed with this process.
func (l *Lab) Hold(cmd *exec.Cmd) (release func() error, err error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	if err := l.startCommand(cmd); err != nil {
		return nil, err
	}
	release = sync.OnceValue(func() error {
		defer l.alive(cmd.Process.Pid, false)
		stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		return cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not ready: %q: %w", cmd.Path, line, err), release())
	}
	return release, nil
}

// Leftovers lists what should be gone after an unmount: mounts, active
// volumes, started lockspaces, device nodes, and processes that no caller waits
// for. Empty is good.
func (l *Lab) Leftovers() ([]string, error) {
	var left []string
	mounts, err := l.Mounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		left = append(left, fmt.Sprintf("mount %s at %s type %s", m.Source, m.Target, m.Type))
	}
	s, err := l.state.Load()
	if err != nil {
		return nil, err
	}
	for _, v := range s.Volumes {
		if v.Active {
			left = append(left, "active volume "+v.VG+"/"+v.LV)
		}
	}
	for _, vg := range s.Locks {
		left = append(left, "lockspace of "+vg)
	}
	nodes, err := os.ReadDir(l.Mapper)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		left = append(left, "node "+filepath.Join(l.Mapper, n.Name()))
	}
	for _, p := range l.strays() {
		left = append(left, fmt.Sprintf("process %d %s", p.PID, p.Command))
	}
	return left, nil
}

func (l *Lab) unmountAll() error {
	all, err := mountTable()
	errs := []error{err}
	for _, m := range slices.Backward(all) {
		if l.baseline[m.ID] {
			continue
		}
		if err := unix.Unmount(m.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Target, err))
		}
	}
	return errors.Join(errs...)
}
