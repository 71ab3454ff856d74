package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
)

var errVolume = errors.New("refused") // the message has been printed

// lvchange activates (--activate y, ys, ey, ay) or deactivates (--activate n) the
// volumes in its arguments.
func (t *toolbox) lvchange() int {
	opts, names := options(t.args, "-a", "--activate", "--config", "-S", "--select")
	how, ok := first(opts, "-a", "--activate")
	if !ok || len(names) == 0 {
		return t.fail(3, "  No command with matching syntax recognised.  Run 'lvchange --help' for more information.")
	}
	return t.change(how, names)
}

// vgchange starts and stops lockspaces, and activates whole groups.
func (t *toolbox) vgchange() int {
	opts, names := options(t.args, "-a", "--activate", "--config", "-S", "--select", "--lock-opt")
	_, start := first(opts, "--lock-start", "--lockstart")
	_, stop := first(opts, "--lock-stop", "--lockstop")
	how, activate := first(opts, "-a", "--activate")
	switch {
	case activate:
		return t.change(how, names)
	case !start && !stop:
		return t.fail(3, "  No command with matching syntax recognised.  Run 'vgchange --help' for more information.")
	}
	code := 0
	err := t.dir.Update(func(s *record.State) error {
		for _, vg := range names {
			vols := s.Group(vg, t.now())
			active := slices.ContainsFunc(vols, func(v *record.Volume) bool { return v.Active })
			i := slices.Index(s.Locks, vg)
			switch {
			case len(vols) == 0:
				code = t.fail(5, "  Volume group \"%s\" not found\n  Cannot process volume group %s", vg, vg)
			case !vols[0].Shared:
				// LVM silently ignores local groups.
			case start:
				fmt.Fprintf(t.stdout, "  VG %s starting dlm lockspace\n  Starting locking.  Waiting until locks are ready...\n", vg)
				if i < 0 {
					s.Locks = append(s.Locks, vg)
				}
			case active:
				code = t.fail(5, "  VG %s stop failed: LVs must first be deactivated", vg)
			case i >= 0:
				s.Locks = slices.Delete(s.Locks, i, i+1)
			}
		}
		return nil
	})
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	return code
}

func (t *toolbox) change(how string, names []string) int {
	code := 0
	err := t.dir.Update(func(s *record.State) error {
		for _, name := range names {
			vg, lv, hasLV := strings.Cut(strings.TrimPrefix(name, "/dev/"), "/")
			vols := s.Group(vg, t.now())
			if len(vols) == 0 {
				code = t.fail(5, "  Volume group \"%s\" not found\n  Cannot process volume group %s", vg, vg)
				continue
			}
			found := false
			for _, v := range vols {
				if hasLV && v.LV != lv {
					continue
				}
				found = true
				if err := t.set(s, v, how); err != nil {
					code = 5
				}
			}
			if !found {
				code = t.fail(5, "  Failed to find logical volume \"%s/%s\"", vg, lv)
			}
		}
		return nil
	})
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	return code
}

func (t *toolbox) set(s *record.State, v *record.Volume, how string) error {
	if v.Shared && !slices.Contains(s.Locks, v.VG) {
		t.fail(5, "  VG %s lock failed: lockspace is inactive\n  Failed to lock logical volume %s/%s.", v.VG, v.VG, v.LV)
		return errVolume
	}
	switch how {
	case "y", "ys", "sy", "ey", "ay", "ly":
		if err := makeNode(v); err != nil {
			t.fail(5, "  faketools: %v", err)
			return err
		}
		v.Active = true
	case "n", "ln", "en":
		if v.Active && inUse(v) {
			t.fail(5, "  Logical volume %s/%s in use.", v.VG, v.LV)
			return errVolume
		}
		if err := removeNode(v); err != nil {
			t.fail(5, "  faketools: %v", err)
			return err
		}
		v.Active = false
	default:
		t.fail(3, "  Invalid argument for --activate: %s\n  Error during parsing of command line.", how)
		return errVolume
	}
	return nil
}

// makeNode creates the device node, like udev. It is a node and not a link, so that the
// mount table has the same name as on a compute node.
func makeNode(v *record.Volume) error {
	if _, err := os.Lstat(v.Node); err == nil {
		return nil
	}
	if v.Late > 0 {
		return laterNode(v)
	}
	tmp := filepath.Join(filepath.Dir(v.Node), ".new-"+filepath.Base(v.Node))
	_ = os.Remove(tmp)
	if v.Bind != "" || v.Plain {
		if err := os.WriteFile(v.Node, nil, 0o600); err != nil || v.Plain {
			return err
		}
		return unix.Mount(v.Bind, v.Node, "", unix.MS_BIND, "")
	}
	if err := unix.Mknod(tmp, unix.S_IFBLK|0o660, int(unix.Mkdev(v.Major, v.Minor))); err != nil {
		return fmt.Errorf("mknod %s: %w", v.Node, err)
	}
	return os.Rename(tmp, v.Node)
}

func removeNode(v *record.Volume) error {
	if v.Bind != "" {
		_ = unix.Unmount(v.Node, unix.MNT_DETACH)
	}
	if err := os.Remove(v.Node); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// inUse reports whether the volume is in use: like the open count of LVM, an exclusive
// open of a block device fails while any mount namespace has it mounted.
func inUse(v *record.Volume) bool {
	if v.Bind != "" || v.Plain {
		return mountedFrom(v.Node)
	}
	fd, err := unix.Open(v.Node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	_ = unix.Close(fd)
	return false
}

// mountedFrom reports whether the mount table has the source.
func mountedFrom(source string) bool {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if _, tail, ok := strings.Cut(line, " - "); ok {
			if f := strings.Fields(tail); len(f) > 1 && f[1] == source {
				return true
			}
		}
	}
	return false
}

// laterNode starts a process that creates the node after the delay of the volume. udev
// is a separate process, too.
func laterNode(v *record.Volume) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	job, err := json.Marshal(v)
	if err != nil {
		return err
	}
	udev := exec.Command(filepath.Join(filepath.Dir(self), "faketools"), "node", string(job))
	udev.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return udev.Start()
}

// nodeNow is the process that laterNode starts.
func nodeNow(args []string, stderr io.Writer) int {
	var v record.Volume
	if err := json.Unmarshal([]byte(args[0]), &v); err != nil {
		fmt.Fprintln(stderr, "faketools node:", err)
		return 2
	}
	time.Sleep(v.Late) // the delay itself
	v.Late = 0
	if err := makeNode(&v); err != nil {
		fmt.Fprintln(stderr, "faketools node:", err)
		return 1
	}
	return 0
}
