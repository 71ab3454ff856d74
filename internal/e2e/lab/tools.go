package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

const standinPackage = "github.com/compute-daemons/compute-daemons/internal/e2e/standin"

// Programs that are found by name, and mount helpers, which mount(8) looks for
// in /sbin and nowhere else.
var (
	standinTools   = []string{"lvs", "vgs", "lvchange", "vgchange", "nvme", "dlm_tool", "mount", "umount"}
	standinHelpers = []string{"mount.lustre", "mount.gfs2"}
)

// standin returns the stand-in program: the file that LAB_STANDIN names, or the one
// beside this program, or built once in the life of the process.
var standin = sync.OnceValues(func() ([]byte, error) {
	if path := cmp.Or(os.Getenv("LAB_STANDIN"), beside("standin")); path != "" {
		return os.ReadFile(path)
	}
	dir, err := os.MkdirTemp("", "lab-standin-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "standin")
	build := exec.Command("go", "build", "-trimpath", "-o", path, standinPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the stand-ins (or name a built one in LAB_STANDIN): %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// installTools puts the stand-ins into the lab's bin directory and, for
// daemons that set a PATH of their own, over the directory behind /sbin.
func (l *Lab) installTools() error {
	program, err := standin()
	if err != nil {
		return err
	}
	first := filepath.Join(l.Bin, "standin")
	if err := os.WriteFile(first, program, 0o755); err != nil {
		return err
	}
	helpers := standinHelpers
	if l.Features.UserNamespace {
		helpers = append(helpers[:len(helpers):len(helpers)], "mount.xfs")
	}
	for _, name := range append(standinTools[:len(standinTools):len(standinTools)], helpers...) {
		if err := os.Link(first, filepath.Join(l.Bin, name)); err != nil {
			return err
		}
		if name == "mount" || name == "umount" {
			continue // only by PATH: the real ones must stay reachable
		}
		if err := os.Symlink(filepath.Join(l.Bin, name), filepath.Join(l.path("sbin"), name)); err != nil {
			return err
		}
	}
	return l.coverSbin()
}

// coverSbin lays our directory over the real one, by an overlay where the kernel
// can, else by a memory file system with links to what was there.
func (l *Lab) coverSbin() error {
	real, err := filepath.EvalSymlinks("/sbin")
	if err != nil {
		return err
	}
	data := "lowerdir=" + l.path("sbin") + ":" + real
	overlay := l.mount("overlay", real, "overlay", unix.MS_RDONLY, data)
	if overlay == nil {
		return nil
	}
	old := l.path("sbin-host")
	if err := os.Mkdir(old, 0o755); err != nil {
		return err
	}
	if err := l.mount(real, old, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return errors.Join(overlay, err)
	}
	entries, err := os.ReadDir(old)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := os.Symlink(filepath.Join(old, e.Name()), filepath.Join(l.path("sbin"), e.Name()))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := l.mount(l.path("sbin"), real, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(overlay, err)
	}
	return nil
}

// Path returns the PATH with the stand-ins first.
func (l *Lab) Path() string { return l.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin" }

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
// call the one that was added first counts.
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
