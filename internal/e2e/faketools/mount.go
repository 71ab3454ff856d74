package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// mount and umount run the programs of the machine, so that calls are logged and faults
// can be injected.
func (t *toolbox) mount() int  { return t.passOn("mount") }
func (t *toolbox) umount() int { return t.passOn("umount") }

func (t *toolbox) passOn(name string) int {
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	path := s.Real.Mount
	if name == "umount" {
		path = s.Real.Umount
	}
	if path == "" {
		return t.fail(125, "faketools: %s is not installed on this machine", name)
	}
	cmd := exec.Command(path, t.args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, t.stdout, t.stderr
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	} else if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	return 0
}

// mount(8) calls its helpers as: helper SOURCE TARGET [-sfnv] [-N ns] [-o options]
// [-t type.subtype]. A helper prints its own errors and uses the exit codes of
// mount(8): 32 for a failed mount.

// mountLustre mounts an empty tmpfs with the name of the source.
func (t *toolbox) mountLustre() int {
	return t.helper("mount.lustre", "tmpfs", "size=16m,mode=0755", func(source string) error {
		if nid, fs, ok := strings.Cut(source, ":/"); !ok || nid == "" || fs == "" {
			return fmt.Errorf("%s: the source must be <mgsnid>[:<mgsnid>]:/<fsname>", source)
		}
		return nil
	})
}

// mountGFS2 mounts the file system on the real device.
func (t *toolbox) mountGFS2() int {
	return t.helper("mount.gfs2", "xfs", "nouuid", func(source string) error {
		st, err := os.Stat(source)
		switch {
		case err != nil:
			return err
		case st.Mode()&os.ModeDevice == 0:
			return fmt.Errorf("%s is not a block device", source)
		}
		return nil
	})
}

// mountXFS is used only if block devices cannot be mounted.
func (t *toolbox) mountXFS() int {
	return t.helper("mount.xfs", "tmpfs", "size=16m,mode=0755", func(source string) error {
		_, err := os.Stat(source)
		return err
	})
}

func (t *toolbox) helper(name, kernelType, data string, check func(source string) error) int {
	opts, positional := options(t.args, "-o", "-t", "-N")
	if len(positional) != 2 {
		return t.fail(1, "%s: usage: %s SOURCE TARGET [-o OPTIONS]", name, name)
	}
	source, target := positional[0], positional[1]
	if err := check(source); err != nil {
		return t.fail(32, "%s: %v", name, err)
	}
	if name == "mount.gfs2" && !isBlock(source) {
		kernelType, data = "tmpfs", "size=16m,mode=0755"
	}
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	if shown, ok := s.Shown[source]; ok {
		source = shown
	}
	if err := unix.Mount(source, target, kernelType, flags(opts["-o"]), data); err != nil {
		return t.fail(32, "%s: mount %s at %s failed: %v", name, source, target, err)
	}
	return 0
}

// isBlock reports whether path is a block device that can be opened. Without privileges
// it cannot.
func isBlock(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
}

// flags converts generic mount options to flags. It ignores other options, which are
// specific to file systems.
func flags(options string) (f uintptr) {
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "ro":
			f |= unix.MS_RDONLY
		case "nosuid":
			f |= unix.MS_NOSUID
		case "nodev":
			f |= unix.MS_NODEV
		case "noexec":
			f |= unix.MS_NOEXEC
		case "noatime":
			f |= unix.MS_NOATIME
		}
	}
	return f
}
