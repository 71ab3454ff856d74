package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	maxSocketPath = 107 // bytes: sun_path without its final NUL, unix(7)
	maxLinks      = 40  // as the kernel follows, path_resolution(7)
)

// resolve gives the path with every symbolic link in its directory replaced.
// It fails when somebody other than root and ourselves could change where the
// path leads, today or while we run. The last component is not looked at.
func resolve(path string) (string, error) {
	if path == "" || path[0] != '/' || strings.IndexByte(path, 0) >= 0 {
		return "", fmt.Errorf("socket path %q is not an absolute path of a file", path)
	}
	clean := filepath.Clean(path)
	if clean == "/" || strings.HasSuffix(path, "/") {
		return "", fmt.Errorf("socket path %q is a directory", path)
	}
	dir, err := trustedDirectory(filepath.Dir(clean))
	if err != nil {
		return "", fmt.Errorf("socket %s: %w", path, err)
	}
	resolved := filepath.Join(dir, filepath.Base(clean))
	if len(resolved) > maxSocketPath {
		return "", fmt.Errorf("socket path %s has %d bytes, the kernel takes %d: choose a shorter one", resolved, len(resolved), maxSocketPath)
	}
	return resolved, nil
}

// trustedDirectory walks from the root, so that each link is found in a
// directory that was checked before.
func trustedDirectory(path string) (string, error) {
	current, rest := "/", split(path)
	if err := checkDirectory(current); err != nil {
		return "", err
	}
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." { // only out of a link; current has none
			current = filepath.Dir(current)
			continue
		}
		next := filepath.Join(current, name)
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("directory %s does not exist: create it, or set RuntimeDirectory= in the unit: %w", next, err)
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
			}
			if !ours(info) {
				return "", fmt.Errorf("%s is a symbolic link of uid %d, who could point it elsewhere: use a path without it", next, owner(info))
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(target) {
				current = "/"
			}
			rest = append(split(target), rest...)
		default:
			if err := checkDirectory(next); err != nil {
				return "", err
			}
			current = next
		}
	}
	return current, nil
}

func checkDirectory(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	const others = 0o022
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case !ours(info):
		return fmt.Errorf("directory %s belongs to uid %d, who could replace the socket: it must belong to root or uid %d", path, owner(info), os.Geteuid())
	case info.Mode().Perm()&others != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("directory %s has mode %04o, so that others could replace the socket: chmod go-w %[1]s", path, info.Mode().Perm())
	}
	return nil
}

// split gives the components of a path without empty ones and dots.
func split(path string) []string {
	var parts []string
	for _, p := range strings.Split(path, "/") {
		if p != "" && p != "." {
			parts = append(parts, p)
		}
	}
	return parts
}

func ours(info fs.FileInfo) bool {
	uid := owner(info)
	return uid == 0 || uid == uint32(os.Geteuid())
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
