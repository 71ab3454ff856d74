package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

const maxSocketPath = 107 // bytes: sun_path without its final NUL, unix(7)

// resolve returns the path with every symbolic link in its directory replaced. It
// fails if users other than root and our own could change where the path leads, now
// or while we run. The last component is not looked at.
func resolve(path string) (string, error) {
	if path == "" || path[0] != '/' || strings.IndexByte(path, 0) >= 0 {
		return "", fmt.Errorf("socket path %q is not an absolute path of a file", path)
	}
	clean := filepath.Clean(path)
	if clean == "/" || strings.HasSuffix(path, "/") {
		return "", fmt.Errorf("socket path %q is a directory", path)
	}
	dir, err := safepath.Directory(filepath.Dir(clean))
	if err != nil {
		return "", fmt.Errorf("socket %s: %w", path, explain(err))
	}
	resolved := filepath.Join(dir, filepath.Base(clean))
	if len(resolved) > maxSocketPath {
		return "", fmt.Errorf("socket path %s has %d bytes, the kernel takes %d: choose a shorter one", resolved, len(resolved), maxSocketPath)
	}
	return resolved, nil
}

// explain words what is wrong with the directory of a socket.
func explain(err error) error {
	if missing, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("directory %s does not exist: create it, or set RuntimeDirectory= in the unit: %w", missing.Path, err)
	}
	bad, ok := errors.AsType[*safepath.Error](err)
	if !ok {
		return err
	}
	switch mode := bad.Entry.Mode & 0o777; {
	case errors.Is(err, safepath.ErrSymlink):
		return fmt.Errorf("%s is a symbolic link of uid %d, who could point it elsewhere: use a path without it", bad.Path, bad.Entry.UID)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s is not a directory", bad.Path)
	case !bad.Entry.Trusted():
		return fmt.Errorf("directory %s belongs to uid %d, who could replace the socket: it must belong to root or uid %d", bad.Path, bad.Entry.UID, os.Geteuid())
	default:
		return fmt.Errorf("directory %s has mode %04o, so that others could replace the socket: chmod go-w %[1]s", bad.Path, mode)
	}
}
