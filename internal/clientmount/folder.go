package clientmount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// OpenRecords makes the folder <runtime>/mounts (0700) if need be. What a
// record tells of is run as root, so nobody else may be able to put one there:
// neither folder may be a symbolic link, another user's, or writable by others.
func OpenRecords(runtimeDir string) (*Records, error) {
	const hint = "; give the daemon its own directory with daemon.runtime_directory (RuntimeDirectory= in the unit)"
	dir := RecordsDirectory(runtimeDir)
	// The folder above decides who may rename the runtime directory.
	if err := safepath.CheckParent(filepath.Dir(runtimeDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("runtime directory %s cannot be trusted: %w%s", runtimeDir, err, hint)
	}
	if err := os.MkdirAll(runtimeDir, 0o755); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be made: %w%s", err, hint)
	}
	if err := safepath.CheckPrivate(runtimeDir); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be trusted: %w%s", err, hint)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("runtime directory cannot be written to: %w%s", err, hint)
	}
	if err := safepath.CheckPrivate(dir); err != nil {
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
