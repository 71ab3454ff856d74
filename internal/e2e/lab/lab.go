// Package lab is the place where a real daemon runs against a real API server
// and real mounts, on a machine without device mapper, NVMe, LVM or Lustre:
// a private mount and process namespace, loop devices in the role of logical
// volumes, stand-in programs with a log and faults, an API server, a proxy in
// front of it that breaks connections on purpose, and a daemon under watch.
//
// Nothing of the host changes and nothing survives: when the last process of
// the namespace ends, also by SIGKILL, the kernel takes down the rest.
//
// It serves tests, the demonstration and the benchmark. It must not know how
// the daemons do their work, so that it can judge what they did.
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

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

// Lab is one lab. There is at most one in a process, because it
// occupies /dev/mapper and /sbin.
type Lab struct {
	Features Features
	Dir      string // everything that the lab writes
	Bin      string // the stand-ins; first in the PATH of daemons
	Mapper   string // where volumes appear: /dev/mapper

	// MountBase is where ClientMounts of tests should mount; it vanishes with
	// the namespace.
	MountBase string

	state    record.Dir
	making   sync.Mutex // of file systems
	baseline map[int]bool
	before   map[int]bool // processes that were here first

	mu      sync.Mutex
	closers []func() error // last one first
	pids    map[int]bool   // processes that are alive on purpose
	closing sync.Once
	signals chan os.Signal

	interrupted atomic.Bool // a signal has come: the process is about to end
}

var occupied atomic.Bool

// New builds a lab below dir, or below a directory of its own when dir is
// empty. It fails when the process has not come through Enter. SIGINT and
// SIGTERM close it and end the process.
func New(dir string) (*Lab, error) {
	f := look()
	if os.Getenv(stageVar) != stageInside {
		return nil, errors.New("a lab needs namespaces of its own: call lab.Enter first in TestMain")
	}
	if !occupied.CompareAndSwap(false, true) {
		return nil, errors.New("there is a lab already in this process: close it first")
	}
	l := &Lab{Features: f, Dir: dir, Mapper: "/dev/mapper", pids: map[int]bool{}}
	if err := l.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Processes returns a lab for programs that need neither mounts nor stand-ins, and so no
// root: all that it has is Start. Its files are in dir, whose path must be short, because
// sockets are there (unix(7)).
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
		return fmt.Errorf("a lab cannot lie in %s: overlay mounts cannot name that directory", l.Dir)
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

// path returns the path of something in the lab's directory.
func (l *Lab) path(name string) string { return filepath.Join(l.Dir, name) }

// mount mounts and notes the unmount.
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

// OnClose has something done at the end, also when a signal brings it: after
// processes are killed and mounts are gone, last one first.
func (l *Lab) OnClose(f func() error) { l.onClose(f) }

func (l *Lab) onClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// alive marks a process as one that may be there.
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

// Close ends every process of the lab, unmounts and detaches all that
// came into being in it and removes its files. It may be called twice. It does
// not return when a signal has come: the process is about to end with code 130,
// and what fails meanwhile fails because everything is being taken away.
func (l *Lab) Close() error {
	if l.interrupted.Load() {
		select {}
	}
	return l.close()
}

// close waits for another one that is at it, so that no other goroutine ends the process
// in the middle of cleaning up.
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
