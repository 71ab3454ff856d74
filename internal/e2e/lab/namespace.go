package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Environment variables that init sets for the program inside.
const (
	userVar = "LAB_USER_NAMESPACE"
	runVar  = "LAB_PRIVATE_RUN"
	mntVar  = "LAB_PRIVATE_MNT"
	devVar  = "LAB_PRIVATE_DEV"
)

// setUpNamespace makes the mounts of the new namespace private, mounts a private /proc,
// /run, /mnt, /dev and /dev/mapper, and hides the NVMe controllers of the machine, which
// must not be rescanned.
func setUpNamespace() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// mount(8) keeps state in /run/mount; compute nodes mount in /mnt/nnf.
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
		return errors.New("cannot replace /run and /mnt: the program, its working directory or its caches are below both")
	}
	// Without the class the daemon uses nvme-cli, and so the fake tool.
	if _, err := os.Stat("/sys/class/nvme"); err == nil {
		if err := unix.Mount("tmpfs", "/sys/class", "tmpfs", unix.MS_RDONLY, "mode=0755"); err != nil {
			return fmt.Errorf("hide /sys/class/nvme: %w", err)
		}
	}
	os.Unsetenv(devVar)
	if err := replaceDev(); err == nil {
		os.Setenv(devVar, "1")
	} else if _, merr := os.Stat("/dev/mapper"); merr != nil {
		return err // no directory for volumes
	}
	if os.Getenv(userVar) != "" {
		return replaceRoot()
	}
	return nil
}

// needed reports whether the program, its working directory or its caches are below
// dir.
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

// replaceDev mounts a private /dev with the entries of the old one, without NVMe
// devices and with an empty directory mapper, which cannot be created in the old one.
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
	if err := copyEntries("/dev", fresh, entries); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(fresh, "mapper"), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fresh, "/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the private /dev: %w", err)
	}
	return os.Remove(fresh)
}

// copyEntries copies the entries of the directory from to the directory to. It ignores
// entries that do not exist any more, because other tests detach loop devices.
func copyEntries(from, to string, entries []fs.DirEntry) error {
	for _, e := range entries {
		if e.Name() == "mapper" || strings.HasPrefix(e.Name(), "nvme") {
			continue
		}
		err := copyDevEntry(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), e.Type())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("private %s/%s: %w", from, e.Name(), err)
		}
	}
	return nil
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
		return nil // sockets and pipes of other services
	}
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return err
	}
	if os.Getenv(userVar) == "" {
		if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
		return unix.Chmod(to, st.Mode&0o7777) // mknod applies the umask
	}
	// Without privileges device nodes can only be bind-mounted. Mount only those that
	// programs need.
	wanted := false
	switch filepath.Base(from) {
	case "null", "zero", "full", "random", "urandom", "tty":
		wanted = true
	default:
		wanted = st.Mode&unix.S_IFMT == unix.S_IFBLK && blockDevice(filepath.Dir(to)) == "" // one block device is enough
	}
	if wanted {
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			return err
		}
		return unix.Mount(from, to, "", unix.MS_BIND, "")
	}
	return nil
}

// replaceRoot mounts a root directory that is owned by root of the user namespace. The
// owner of the real root directory is unmapped there, and the daemons create nothing
// below directories that another user could change. The directories of the real root
// are bind-mounted into the new one; plain files are omitted.
func replaceRoot() error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	const base = "/tmp" // any directory; the new root has it again
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a private root: %w", err)
	}
	for _, dir := range []string{base + "/old", base + "/new"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(base, base+"/old"); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	// The second root must be a separate mount.
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
	// pivot_root(2): with "." twice the old root is mounted on top of the new one.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("enter the private root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
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
		return nil // this user has no access to the directory
	}
	return err
}
