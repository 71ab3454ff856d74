package systemd

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
	pid := OlderPIDFile(s.Name)
	older := strings.Contains(string(text), "\nExecStartPre=/bin/rm -f "+pid+"\n") && strings.Contains(string(text), "\nPIDFile="+pid+"\n")
	return strings.HasPrefix(string(text), marker) || older, nil
}

// hidden says what to do about a file in /etc that systemd takes instead of the
// package's, "" where there is none of them or the other.
func (s *Service) hidden(unit string) (advice string, err error) {
	own := s.path(ownDir, unit)
	for _, path := range []string{own, s.path(packageDir, unit)} {
		if there, err := present(path); err != nil || !there {
			return "", err
		}
	}
	if target, err := os.Readlink(own); err == nil && target == "/dev/null" {
		return fmt.Sprintf("%s is masked and cannot be started; if that is not on purpose, run systemctl unmask %s", unit, unit), nil
	}
	advice = own + " hides the package's unit; to use that "
	written, err := s.byInstall(own)
	if written {
		return advice + fmt.Sprintf("run %s remove, then %s install and %s start", s.Name, s.Name, s.Name), err
	}
	return advice + fmt.Sprintf("move what is yours in it into a drop-in (systemctl edit %s), delete it, then systemctl daemon-reload and restart", unit), err
}

// dropIns are the administrator's changes to our units.
func (s *Service) dropIns() (paths []string) {
	for _, unit := range s.Units {
		found, _ := filepath.Glob(s.path(ownDir, unit.Name+".d") + "/*.conf") // the pattern is well formed
		paths = append(paths, found...)
	}
	return paths
}
