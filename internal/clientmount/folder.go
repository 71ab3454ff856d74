package clientmount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// OpenRecords makes the folder <runtime>/mounts (0700) if need be. What a
// record tells of is run as root, so nobody else may be able to put one there:
// neither folder may be a symbolic link, another user's, or writable by others.
func OpenRecords(runtimeDir string) (*Records, error) {
	const hint = "; give the daemon its own directory with daemon.runtime_directory (RuntimeDirectory= in the unit)"
	dir := RecordsDirectory(runtimeDir)
	// The folder above decides who may rename the runtime directory.
	if err := closedToOthers(filepath.Dir(runtimeDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("runtime directory %s cannot be trusted: %w%s", runtimeDir, err, hint)
	}
	if err := os.MkdirAll(runtimeDir, 0o755); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be made: %w%s", err, hint)
	}
	if err := ownFolder(runtimeDir); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be trusted: %w%s", err, hint)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("runtime directory cannot be written to: %w%s", err, hint)
	}
	if err := ownFolder(dir); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be trusted: %w%s", err, hint)
	}
	// What a crash left half written was never in force.
	half, err := filepath.Glob(filepath.Join(dir, "*"+recordSuffix+halfWritten))
	for _, name := range half {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return nil, fmt.Errorf("runtime directory cannot be tidied up: %w%s", err, hint)
	}
	return &Records{dir: dir}, nil
}

// ownFolder refuses what is not a folder of ours that only we can write to.
func ownFolder(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	switch sys, ok := st.Sys().(*syscall.Stat_t); {
	case st.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link", dir)
	case !st.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case ok && int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to uid %d, not to this daemon's uid %d", dir, sys.Uid, os.Geteuid())
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %04o)", dir, st.Mode().Perm())
	}
	return nil
}

// closedToOthers refuses a folder in which others can rename what is not
// theirs.
func closedToOthers(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("others can write to %s (mode %04o, not sticky), so they can replace what is in it", dir, st.Mode().Perm())
	}
	return nil
}
