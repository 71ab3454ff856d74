package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

// Call is one run of a stand-in.
type Call = record.Call

// Fault is one way for a stand-in to misbehave.
type Fault = record.Fault

// Log returns the calls of the stand-ins so far, by start.
func (l *Lab) Log() ([]Call, error) { return l.state.Calls() }

// ClearLog forgets the calls so far.
func (l *Lab) ClearLog() error {
	if err := os.Truncate(l.state.LogPath(), 0); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Fault makes a stand-in misbehave from now on. Of several faults that fit a
// call the one that was added first is played.
func (l *Lab) Fault(tool string, f Fault) error {
	f.Tool = tool
	return l.state.Update(func(s *record.State) error { s.Faults = append(s.Faults, &f); return nil })
}

// ClearFaults makes all stand-ins behave; a call that hangs already stays.
func (l *Lab) ClearFaults() error {
	return l.state.Update(func(s *record.State) error { s.Faults = nil; return nil })
}

// Gate returns a path for Fault.Gate and the function that opens it: a call
// that meets the gate waits there, so that a test can look at the moment.
func (l *Lab) Gate(name string) (path string, open func() error) {
	path = l.path("gate-" + name)
	return path, func() error { return os.WriteFile(path, nil, 0o600) }
}

// WaitCall returns the first call that fits, past or future. It sleeps on the
// log file and does not poll.
func (l *Lab) WaitCall(ctx context.Context, fits func(Call) bool) (Call, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return Call{}, err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	if _, err := unix.InotifyAddWatch(fd, string(l.state), unix.IN_MODIFY|unix.IN_CREATE); err != nil {
		return Call{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		calls, err := l.Log()
		if err != nil {
			return Call{}, err
		}
		if i := slices.IndexFunc(calls, fits); i >= 0 {
			return calls[i], nil
		}
		if _, err := events.Read(buf); err != nil {
			return Call{}, fmt.Errorf("no such call came: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// Tool runs a stand-in the way an administrator would.
func (l *Lab) Tool(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(l.Bin, name), args...)
	cmd.Env = []string{"PATH=" + l.Path()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// Leftovers lists what should be gone after an unmount: mounts, active
// volumes, started lockspaces, device nodes, and processes that nobody waits
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
