package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Set by init for the program inside.
const (
	userVar = "LAB_USER_NAMESPACE"
	runVar  = "LAB_PRIVATE_RUN"
	mntVar  = "LAB_PRIVATE_MNT"
	devVar  = "LAB_PRIVATE_DEV"
)

// furnish makes the new mount namespace safe and complete: private, with its
// own /proc, /run, /mnt, /dev and /dev/mapper, and blind for the machine's real
// NVMe controllers, which nothing here may rescan.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// mount(8) keeps notes in /run/mount; /mnt/nnf is where computes mount.
	hidden := 0
	for dir, name := range map[string]string{"/run": runVar, "/mnt": mntVar} {
		os.Unsetenv(name)
		if needed(dir) {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount a private %s: %w", dir, err)
		}
		os.Setenv(name, "1")
		hidden++
	}
	if hidden == 0 {
		return errors.New("this program and its directory lie below both /run and /mnt, which have to be replaced")
	}
	// Without the class the daemon asks nvme-cli, that is the stand-in.
	if _, err := os.Stat("/sys/class/nvme"); err == nil {
		if err := unix.Mount("tmpfs", "/sys/class", "tmpfs", unix.MS_RDONLY, "mode=0755"); err != nil {
			return fmt.Errorf("hide /sys/class/nvme: %w", err)
		}
	}
	os.Unsetenv(devVar)
	if err := replaceDev(); err == nil {
		os.Setenv(devVar, "1")
	} else if _, merr := os.Stat("/dev/mapper"); merr != nil {
		return err // there is nothing to put volumes on
	}
	if os.Getenv(userVar) != "" {
		return replaceRoot()
	}
	return nil
}

// needed tells whether the program, its working directory or its caches lie
// below dir.
func needed(dir string) bool {
	exe, _ := os.Executable()
	cwd, _ := os.Getwd()
	for _, path := range []string{exe, cwd, os.Getenv("GOCACHE"), os.Getenv("GOMODCACHE"), os.Getenv("HOME"), os.Getenv("TMPDIR")} {
		if strings.HasPrefix(path+"/", dir+"/") {
			return true
		}
	}
	return false
}

// replaceDev puts a /dev in place that has what the old one had, no NVMe devices
// and an empty directory mapper, which cannot be made in the host's.
func replaceDev() (err error) {
	parent := "/run"
	if os.Getenv(runVar) == "" {
		parent = "/mnt"
	}
	fresh := filepath.Join(parent, "lab-dev")
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", fresh, "tmpfs", unix.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mount a private /dev: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Unmount(fresh, unix.MNT_DETACH)
			_ = os.Remove(fresh)
		}
	}()
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "mapper" || strings.HasPrefix(e.Name(), "nvme") {
			continue
		}
		if err := copyDevEntry(filepath.Join("/dev", e.Name()), filepath.Join(fresh, e.Name()), e.Type()); err != nil {
			return fmt.Errorf("private /dev/%s: %w", e.Name(), err)
		}
	}
	if err := os.Mkdir(filepath.Join(fresh, "mapper"), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fresh, "/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("put the private /dev in place: %w", err)
	}
	return os.Remove(fresh)
}

func copyDevEntry(from, to string, mode os.FileMode) error {
	switch {
	case mode.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
	case mode&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case mode&os.ModeDevice == 0:
		return nil // sockets and pipes of services that are not ours
	}
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return err
	}
	if os.Getenv(userVar) == "" {
		if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
		return unix.Chmod(to, st.Mode&0o7777) // mknod minds the umask
	}
	// Without privileges device nodes can only be borrowed, and each costs a
	// mount: take the few that programs need.
	wanted := false
	switch filepath.Base(from) {
	case "null", "zero", "full", "random", "urandom", "tty":
		wanted = true
	default:
		wanted = st.Mode&unix.S_IFMT == unix.S_IFBLK && blockDevice(filepath.Dir(to)) == "" // any one will do
	}
	if wanted {
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			return err
		}
		return unix.Mount(from, to, "", unix.MS_BIND, "")
	}
	return nil
}

// replaceRoot gives a user namespace a root directory that belongs to its root
// user. The machine's has an unmapped owner there, and the daemons make nothing
// below directories that another user could change. What is in the machine's
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
