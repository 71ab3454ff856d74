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

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
)

const fakePackage = "github.com/compute-daemons/compute-daemons/internal/e2e/faketools"

// The fake programs in PATH, and the fake mount helpers, which mount(8) searches only in
// /sbin.
var (
	fakeTools   = []string{"lvs", "vgs", "lvchange", "vgchange", "nvme", "dlm_tool", "mount", "umount"}
	fakeHelpers = []string{"mount.lustre", "mount.gfs2"}
)

// faketools returns the program of the fake tools: the file in LAB_FAKETOOLS, or the file
// next to this program, or a new build.
var faketools = sync.OnceValues(func() ([]byte, error) {
	if path := cmp.Or(os.Getenv("LAB_FAKETOOLS"), beside("faketools")); path != "" {
		return os.ReadFile(path)
	}
	dir, err := os.MkdirTemp("", "lab-faketools-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "faketools")
	build := exec.Command("go", "build", "-trimpath", "-o", path, fakePackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the fake tools (or set LAB_FAKETOOLS to the program): %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// installTools installs the fake tools in the bin directory of the lab and, for daemons
// that set their own PATH, over the directory behind /sbin.
func (l *Lab) installTools() error {
	program, err := faketools()
	if err != nil {
		return err
	}
	first := filepath.Join(l.Bin, "faketools")
	if err := os.WriteFile(first, program, 0o755); err != nil {
		return err
	}
	helpers := fakeHelpers
	if l.Features.UserNamespace {
		helpers = append(helpers[:len(helpers):len(helpers)], "mount.xfs")
	}
	for _, name := range append(fakeTools[:len(fakeTools):len(fakeTools)], helpers...) {
		if err := os.Link(first, filepath.Join(l.Bin, name)); err != nil {
			return err
		}
		if name == "mount" || name == "umount" {
			continue // only in PATH: the real ones must stay available
		}
		if err := os.Symlink(filepath.Join(l.Bin, name), filepath.Join(l.path("sbin"), name)); err != nil {
			return err
		}
	}
	return l.coverSbin()
}

// coverSbin mounts the directory of the fakes over /sbin: as an overlay if the kernel
// supports that, otherwise as a directory with links to the old entries.
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

// Path returns the PATH with the fake tools first.
func (l *Lab) Path() string { return l.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin" }

// Call is a call of a fake tool.
type Call = record.Call

// Fault is an injected fault of a fake tool.
type Fault = record.Fault

// Log returns the calls of the fake tools so far, ordered by start.
func (l *Lab) Log() ([]Call, error) { return l.state.Calls() }

// ClearLog clears the log of calls.
func (l *Lab) ClearLog() error {
	if err := os.Truncate(l.state.LogPath(), 0); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Fault injects a fault into a fake tool. If several faults match a call, the first one
// is used.
func (l *Lab) Fault(tool string, f Fault) error {
	f.Tool = tool
	return l.state.Update(func(s *record.State) error { s.Faults = append(s.Faults, &f); return nil })
}

// ClearFaults removes all faults. Calls that already hang are not affected.
func (l *Lab) ClearFaults() error {
	return l.state.Update(func(s *record.State) error { s.Faults = nil; return nil })
}

// Barrier returns a path for Fault.Barrier and a function that opens the barrier. A
// call with the fault waits until then.
func (l *Lab) Barrier(name string) (path string, open func() error) {
	path = l.path("barrier-" + name)
	return path, func() error { return os.WriteFile(path, nil, 0o600) }
}

// WaitCall waits for a call that matches, and returns the first one, including past
// calls. It watches the log file and does not poll.
func (l *Lab) WaitCall(ctx context.Context, match func(Call) bool) (Call, error) {
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
		if i := slices.IndexFunc(calls, match); i >= 0 {
			return calls[i], nil
		}
		if _, err := events.Read(buf); err != nil {
			return Call{}, fmt.Errorf("no call matches: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// Tool runs a fake tool like an administrator.
func (l *Lab) Tool(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(l.Bin, name), args...)
	cmd.Env = []string{"PATH=" + l.Path()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
