package safepath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ReadFile reads a regular file of at most limit bytes. flags are additional flags of open(2), and
// check checks the open file, unless it is nil. A named pipe does not block it.
func ReadFile(path string, limit int64, flags int, check func(fs.FileInfo) error) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if check != nil {
		if err := check(fi); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// TemporarySuffix is the end of the name that a file has in StoreSecret until it is complete. A crash
// can leave a file with this name behind.
const TemporarySuffix = ".new"

// StoreSecret replaces the file name in a directory of the user of this process atomically, with
// mode 0600. It creates the directory if its parent exists, and refuses one that other users can
// change. When it returns nil, the file is on the disk.
func StoreSecret(dir, name string, data []byte) error {
	if err := CheckParent(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := CheckPrivate(dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := ReplaceSecret(int(d.Fd()), name, name+TemporarySuffix, data); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
