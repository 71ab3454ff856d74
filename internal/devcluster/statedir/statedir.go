// Package statedir is the directory of one development cluster: who uses it, where
// things lie in it, and how a file in it is replaced so that no reader ever
// sees half of it.
//
// It must not know what a cluster is made of.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process runs a cluster on the directory.
var ErrInUse = errors.New("in use")

// runtimeFolder holds what exists only while a cluster runs. Its descriptor is
// the lock, so that a killed process leaves no lock behind.
const runtimeFolder = "run"

// Dir is a directory that this process holds.
type Dir struct {
	path string
	run  *os.File
}

// Lock creates the directory if needed (mode 0700) and takes it for this process.
// The error is ErrInUse, with the process id, when somebody else holds it.
func Lock(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	run := filepath.Join(path, runtimeFolder)
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
			return nil, fmt.Errorf("%s is %w by process %d (devcluster down --dir %s ends it)", path, ErrInUse, p.PID, path)
		}
		return nil, fmt.Errorf("%s is %w by another process", path, ErrInUse)
	}
	d := &Dir{path: path, run: f}
	// A killed predecessor leaves its sockets and its process record.
	if err := d.clearRuntime(); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// Path joins the directory's absolute path and the elements.
func (d *Dir) Path(elements ...string) string {
	return filepath.Join(append([]string{d.path}, elements...)...)
}

// SocketPath names a socket in the runtime directory. The name goes through this
// process's descriptor of the directory: it stays below the 107 bytes of a socket
// address however long the directory's own path is. It is of use to this process
// only, and until Close.
func (d *Dir) SocketPath(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.run.Fd(), name)
}

// Close removes what belongs to the running cluster and lets go of the directory.
func (d *Dir) Close() error {
	return errors.Join(d.clearRuntime(), d.run.Close())
}

// Purge removes the named entries (the state of a cluster, as its maker knows
// it), the runtime directory, and the directory itself when nothing else is in it.
// Dir is closed afterwards.
func (d *Dir) Purge(entries ...string) error {
	var errs []error
	for _, name := range append(entries, runtimeFolder) {
		errs = append(errs, os.RemoveAll(d.Path(name)))
	}
	if err := os.Remove(d.path); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, d.run.Close())
	return errors.Join(errs...)
}

func (d *Dir) clearRuntime() error {
	entries, err := os.ReadDir(d.Path(runtimeFolder))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.Remove(d.Path(runtimeFolder, e.Name())))
	}
	return errors.Join(errs...)
}
