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

// Mount is a line of the mount table of the kernel.
type Mount struct {
	ID      int
	Device  string // major:minor
	Root    string // root of the mount in the file system; the device for a bound node
	Target  string
	Type    string
	Source  string
	Options string
}

// mountTable reads the mount table of this process. It does not use the code of the
// daemons, because it checks their results.
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

// unescape decodes octal escapes, for example of spaces.
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

// Mounts returns the mounts since the creation of the lab, the oldest first.
func (l *Lab) Mounts() ([]Mount, error) {
	all, err := mountTable()
	var fresh []Mount
	for _, m := range all {
		bound := strings.HasPrefix(m.Target, l.Mapper+"/") // a bound device node
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

// process is a process of this namespace.
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
			continue // exited
		}
		// 12 (name) S ...: the name may contain anything, so search from the end.
		head, tail, _ := strings.Cut(string(stat), " (")
		i := strings.LastIndex(tail, ") ")
		if i < 0 || head == "" || strings.ContainsAny(tail[i+2:i+3], "ZX") {
			continue // a zombie
		}
		name := tail[:i] // the command line is empty during an exec
		if cmd, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline")); len(cmd) > 0 {
			name = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
		}
		list = append(list, process{pid, name})
	}
	return list
}

// strays returns the processes that did not exist before the lab and are not expected.
func (l *Lab) strays() []process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(processes(), func(p process) bool { return l.before[p.PID] || l.pids[p.PID] })
}

// killStrays kills all processes that did not exist before the lab. This is safe,
// because the PID namespace is private and has no processes of the host.
func (l *Lab) killStrays() {
	for range 10 { // a killed process may have started another one
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

// Ways to keep a mount busy. HoldCWD, HoldOpen and HoldMmap: a process has its working
// directory, an open file or a mapped file in the mount. HoldNested: another mount
// below. HoldNamespace: a process in another mount namespace has its working directory
// in the copy of the mount, so that the unmount succeeds but the device stays in use.
// The kernel removes copies that no process uses when the target is removed.
const (
	HoldCWD       = "cwd"
	HoldOpen      = "open"
	HoldMmap      = "mmap"
	HoldNested    = "nested"
	HoldNamespace = "namespace"
)

// Holder keeps a mount busy.
type Holder struct {
	PID  int    // 0 for a nested mount
	Path string // the path in use
	free func() error
}

// Release releases the mount and waits until the kernel has done so. If a signal has ended
// the process, the error names it.
func (h *Holder) Release() error { return h.free() }

// Busy keeps the mount at path busy until Release.
func (l *Lab) Busy(kind, path string) (*Holder, error) { return l.busy(kind, path) }

// BusyUser is Busy with a process of a user. If the process is deaf, it ignores SIGTERM.
func (l *Lab) BusyUser(kind, path string, uid int, deaf bool) (*Holder, error) {
	more := []string{strconv.Itoa(uid)}
	if deaf {
		more = append(more, "deaf")
	}
	return l.busy(kind, path, more...)
}

func (l *Lab) busy(kind, path string, more ...string) (*Holder, error) {
	held := path
	args := append([]string{"busy", kind, path}, more...)
	attr := &syscall.SysProcAttr{}
	switch kind {
	case HoldCWD:
	case HoldOpen, HoldMmap:
		if st, err := os.Stat(path); err != nil {
			return nil, err
		} else if st.IsDir() { // otherwise a device node
			held = filepath.Join(path, "held-"+kind)
			args[2] = held
		}
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
		return nil, fmt.Errorf("unknown kind of holder: %s", kind)
	}
	cmd := exec.Command(filepath.Join(l.Bin, "faketools"), args...)
	cmd.SysProcAttr, cmd.Stderr = attr, os.Stderr
	release, err := l.Hold(cmd)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", path, err)
	}
	return &Holder{PID: cmd.Process.Pid, Path: held, free: release}, nil
}

// Hold starts a command that writes a line when it is ready and exits at the end of its
// standard input. The process is expected until release, which closes the input and
// waits. It is killed with this process.
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

// Leftovers returns everything that should not exist after an unmount: mounts, active
// volumes, started lockspaces, device nodes, and unexpected processes.
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
