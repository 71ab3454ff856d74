// Package statedir manages the directory of a development cluster: the lock, the paths
// in it, and atomic replacement of its files.
//
// It must not know the contents of the files.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned if another process runs a cluster in the directory.
var ErrInUse = errors.New("in use")

// runtimeDir has the files that exist only while a cluster runs. Its descriptor is the
// lock, so that a killed process leaves no lock behind.
const runtimeDir = "run"

// Dir is a directory that this process has locked or joined.
type Dir struct {
	path   string
	run    *os.File
	joined bool // another process has locked it
}

// Lock creates the directory if necessary (mode 0700) and locks it for this process.
// If another process has locked it, the error is ErrInUse, with the PID.
func Lock(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	run := filepath.Join(path, runtimeDir)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(run, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", run, err)
		}
		if p, err := ReadProcess(path); err == nil {
			return nil, fmt.Errorf("%s is %w by process %d (to stop it, run devcluster down --dir %s)", path, ErrInUse, p.PID, path)
		}
		return nil, fmt.Errorf("%s is %w by another process", path, ErrInUse)
	}
	d := &Dir{path: path, run: f}
	// Remove the sockets and the process record of a killed process.
	if err := d.clearRuntime(); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// Join returns the directory of a cluster that another process runs. It returns
// ErrNotRunning if no process does. Close then removes nothing.
func Join(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := ReadProcess(path); err != nil {
		return nil, fmt.Errorf("the cluster in %s: %w", path, err)
	}
	f, err := os.Open(filepath.Join(path, runtimeDir))
	if err != nil {
		return nil, err
	}
	return &Dir{path: path, run: f, joined: true}, nil
}

// Path joins the absolute path of the directory and the elements.
func (d *Dir) Path(elements ...string) string {
	return filepath.Join(append([]string{d.path}, elements...)...)
}

// SocketPath returns the path of a socket in the runtime directory, through the
// descriptor of this process. So it is shorter than the limit of socket addresses, 107
// bytes, even for long directory paths. It is valid only in this process, until Close.
func (d *Dir) SocketPath(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.run.Fd(), name)
}

// Close removes the runtime files and unlocks the directory.
func (d *Dir) Close() error {
	if d.joined {
		return d.run.Close()
	}
	return errors.Join(d.clearRuntime(), d.run.Close())
}

// Purge removes the given entries, the runtime directory, and the directory itself if
// it is then empty. It closes d.
func (d *Dir) Purge(entries ...string) error {
	var errs []error
	for _, name := range append(entries, runtimeDir) {
		errs = append(errs, os.RemoveAll(d.Path(name)))
	}
	if err := os.Remove(d.path); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, d.run.Close())
	return errors.Join(errs...)
}

func (d *Dir) clearRuntime() error {
	entries, err := os.ReadDir(d.Path(runtimeDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.Remove(d.Path(runtimeDir, e.Name())))
	}
	return errors.Join(errs...)
}
