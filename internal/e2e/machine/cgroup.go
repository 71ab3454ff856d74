package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups are a machine's own control groups, one in each hierarchy that
// systemd uses. A container makes its groups below the one that it was started
// in, and leaves them behind.
type cgroups []string

// newCgroups makes a group below ours in each hierarchy.
func newCgroups(name string) (cgroups, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var g cgroups
	for _, dir := range systemdCgroups(string(own), string(mounts)) {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("control groups of a container: %w", err), g.remove())
		}
		g = append(g, dir)
	}
	if len(g) == 0 {
		return nil, errors.New("control groups of a container: neither cgroup2 nor systemd's hierarchy is mounted")
	}
	return g, nil
}

// systemdCgroups finds the folders of our own groups: in the hierarchy of
// version 2, and in that of version 1 with the name systemd.
func systemdCgroups(own, mounts string) (dirs []string) {
	for line := range strings.Lines(own) {
		// 0::/path or 9:name=systemd:/path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || (parts[1] != "" && parts[1] != "name=systemd") {
			continue
		}
		for mount := range strings.Lines(mounts) {
			// 40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
			head, tail, ok := strings.Cut(strings.TrimSpace(mount), " - ")
			at, kind := strings.Fields(head), strings.Fields(tail)
			if !ok || len(at) < 5 || len(kind) < 3 {
				continue
			}
			second := parts[1] == "" && kind[0] == "cgroup2"
			named := parts[1] != "" && kind[0] == "cgroup" && strings.Contains(kind[2], parts[1])
			if second || named {
				dirs = append(dirs, filepath.Join(at[4], strings.TrimPrefix(parts[2], at[3])))
				break
			}
		}
	}
	return dirs
}

// remove kills what is in the groups and removes them with those below. The
// kernel takes a moment until the killed have left.
func (g cgroups) remove() error {
	var err error
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err = nil
		for _, dir := range g {
			err = errors.Join(err, removeTree(dir))
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// removeTree removes the folders of a tree; the files in them are the kernel's.
// Processes that are in the way are killed.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	if rm := unix.Rmdir(dir); rm != nil && rm != unix.ENOENT {
		killGroup(dir)
		err = errors.Join(err, fmt.Errorf("remove %s: %w", dir, rm))
	}
	return err
}

// killGroup kills the processes of one group. One of a number namespace that
// is not ours has the number 0 here, and is left alone.
func killGroup(dir string) {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for line := range strings.Lines(string(text)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
