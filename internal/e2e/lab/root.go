package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// replaceRoot gives a user namespace a root directory that belongs to its root
// user. The machine's belongs to nobody there, and the daemons make nothing
// below directories that somebody else could change. What is in the machine's
// root is bound into the new one; plain files in it are left out.
func replaceRoot() error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	const base = "/tmp" // any directory will do, it is seen again below
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a private root: %w", err)
	}
	for _, dir := range []string{base + "/old", base + "/new"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(base, base+"/old"); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	// The second root has to be a mount of its own.
	if err := unix.Mount("tmpfs", "/new", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a private root: %w", err)
	}
	entries, err := os.ReadDir("/old")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := bindEntry(filepath.Join("/old", e.Name()), filepath.Join("/new", e.Name()), e.Type()); err != nil {
			return fmt.Errorf("bind /%s into the private root: %w", e.Name(), err)
		}
	}
	if err := os.Chdir("/new"); err != nil {
		return err
	}
	// pivot_root(2): with "." twice the old root lies on top of the new one.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("enter the private root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's root: %w", err)
	}
	return os.Chdir(cwd)
}

func bindEntry(from, to string, mode os.FileMode) error {
	switch {
	case mode&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case !mode.IsDir():
		return nil
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
	if errors.Is(err, unix.EACCES) {
		return nil // a directory that this user may not even look into
	}
	return err
}
