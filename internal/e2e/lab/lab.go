// Package lab is a test environment for the real daemons with a real API server and
// real mounts, on a machine without device mapper, NVMe, LVM or Lustre. It has a
// private mount and PID namespace, loop devices as logical volumes, fake tools with a
// log and fault injection, an API server, and a proxy in front of it that can break
// connections.
//
// Nothing changes on the host, and nothing is left behind: when the last process of the
// namespace exits, even by SIGKILL, the kernel removes the rest.
//
// Tests, the demo and the benchmark use it. It must not know how the daemons work, so
// that its checks are independent.
package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
)

// Lab is a test environment. A process can have only one, because it replaces
// /dev/mapper and /sbin.
type Lab struct {
	Features Features
	Dir      string // for all files of the lab
	Bin      string // the fake tools; first in the PATH of daemons
	Mapper   string // directory of the volumes: /dev/mapper

	// MountBase is the parent directory for mounts of tests. It disappears with the
	// namespace.
	MountBase string

	state    record.Dir
	making   sync.Mutex // for the creation of file systems
	baseline map[int]bool
	before   map[int]bool // processes that existed before the lab

	mu      sync.Mutex
	closers []func() error // called in reverse order
	pids    map[int]bool   // processes that are expected to run
	closing sync.Once
	signals chan os.Signal

	interrupted atomic.Bool // a signal has arrived: the process is about to exit
}

var occupied atomic.Bool

// New creates a lab below dir, or below a new directory if dir is empty. It fails if
// the process has not called Enter. SIGINT and SIGTERM close the lab and exit.
func New(dir string) (*Lab, error) {
	f := detect()
	if os.Getenv(stageVar) != stageInside {
		return nil, errors.New("a lab needs private namespaces: call lab.Enter first in TestMain")
	}
	if !occupied.CompareAndSwap(false, true) {
		return nil, errors.New("this process already has a lab: close it first")
	}
	l := &Lab{Features: f, Dir: dir, Mapper: "/dev/mapper", pids: map[int]bool{}}
	if err := l.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Processes returns a lab that only supports Start, for programs that need neither
// mounts nor fake tools. It does not need root. Its files are in dir, whose path must
// be short, because it contains sockets (unix(7)).
func Processes(dir string) *Lab {
	return &Lab{Dir: dir, Bin: filepath.Join(dir, "bin"), pids: map[int]bool{}}
}

func (l *Lab) build() error {
	if l.Dir == "" {
		base := ""
		if os.Getenv(runVar) != "" {
			base = "/run"
		}
		dir, err := os.MkdirTemp(base, "lab-")
		if err != nil {
			return err
		}
		l.Dir = dir
		l.onClose(func() error { return os.RemoveAll(dir) })
	}
	if strings.ContainsAny(l.Dir, ":,\\") {
		return fmt.Errorf("a lab cannot use the directory %s: overlay mounts do not support its name", l.Dir)
	}
	l.Bin, l.state = filepath.Join(l.Dir, "bin"), record.Dir(filepath.Join(l.Dir, "state"))
	l.MountBase = filepath.Join(l.Dir, "mnt")
	if os.Getenv(mntVar) != "" {
		l.MountBase = "/mnt/nnf"
	}
	for _, dir := range []string{l.Bin, string(l.state), l.MountBase, l.path("nodes"), l.path("sbin")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	l.catchSignals()
	if err := l.installTools(); err != nil {
		return err
	}
	if err := l.mount("tmpfs", l.Mapper, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	mounts, err := mountTable()
	if err != nil {
		return err
	}
	l.baseline = map[int]bool{}
	for _, m := range mounts {
		l.baseline[m.ID] = true
	}
	l.before = map[int]bool{}
	for _, p := range processes() {
		l.before[p.PID] = true
	}
	mountProgram, _ := exec.LookPath("mount")
	umountProgram, _ := exec.LookPath("umount")
	return l.state.Update(func(s *record.State) error {
		s.Real = record.Real{Mount: mountProgram, Umount: umountProgram}
		return nil
	})
}

// path returns a path in the directory of the lab.
func (l *Lab) path(name string) string { return filepath.Join(l.Dir, name) }

// mount mounts, and unmounts when the lab is closed.
func (l *Lab) mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", fstype, target, err)
	}
	l.onClose(func() error {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
		return nil
	})
	return nil
}

// OnClose registers a function that Close calls, including after a signal. The
// functions are called in reverse order, after processes are killed and mounts are
// unmounted.
func (l *Lab) OnClose(f func() error) { l.onClose(f) }

func (l *Lab) onClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// alive marks a process as expected, or no longer expected.
func (l *Lab) alive(pid int, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if yes {
		l.pids[pid] = true
	} else {
		delete(l.pids, pid)
	}
}

func (l *Lab) catchSignals() {
	l.signals = make(chan os.Signal, 1)
	signal.Notify(l.signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		if s, ok := <-l.signals; ok {
			fmt.Fprintf(os.Stderr, "lab: %v, cleaning up\n", s)
			l.interrupted.Store(true)
			if err := l.close(); err != nil {
				fmt.Fprintln(os.Stderr, "lab:", err)
			}
			os.Exit(130)
		}
	}()
}

// Close kills all processes of the lab, unmounts and detaches everything and removes
// the files. It may be called twice. After a signal it does not return: the process is
// about to exit with code 130, and errors during the cleanup are meaningless.
func (l *Lab) Close() error {
	if l.interrupted.Load() {
		select {}
	}
	return l.close()
}

// close cleans up once. A concurrent call waits, so that the process does not exit
// during the cleanup.
func (l *Lab) close() (err error) {
	l.closing.Do(func() { err = l.takeDown() })
	return err
}

func (l *Lab) takeDown() error {
	l.mu.Lock()
	closers := slices.Clone(l.closers)
	l.mu.Unlock()
	defer occupied.Store(false)
	var errs []error
	if l.before != nil {
		l.killStrays()
	}
	if l.baseline != nil {
		errs = append(errs, l.unmountAll())
	}
	for _, f := range slices.Backward(closers) {
		errs = append(errs, f())
	}
	if l.signals != nil {
		signal.Stop(l.signals)
	}
	return errors.Join(errs...)
}
