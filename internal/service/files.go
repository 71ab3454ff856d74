package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// create writes a file that is not there yet, whole or not at all, readable by
// everybody. Whatever is there already, a link too, is fs.ErrExist.
func create(path, text string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Link(f.Name(), path) // unlike a rename it replaces nothing
}

// present reports whether there is anything at the path.
func present(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// packaged reports whether the package brought the unit of the service.
func (s *Service) packaged() (bool, error) { return present(s.path(packageDir, s.Units[0].Name)) }

// byInstall reports whether install has written the file, ours or that of the
// older daemon, whose units had a PID file that nobody wrote.
func (s *Service) byInstall(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	older := strings.Contains(string(text), fmt.Sprintf("\nExecStartPre=/bin/rm -f /var/run/%s.pid\n", s.Name)) &&
		strings.Contains(string(text), fmt.Sprintf("\nPIDFile=/var/run/%s.pid\n", s.Name))
	return strings.HasPrefix(string(text), marker) || older, nil
}

// dropIns are the administrator's changes to our units.
func (s *Service) dropIns() (paths []string) {
	for _, unit := range s.Units {
		found, _ := filepath.Glob(s.path(ownDir, unit.Name+".d") + "/*.conf") // the pattern is well formed
		paths = append(paths, found...)
	}
	return paths
}
