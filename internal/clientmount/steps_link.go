package clientmount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// link is the mount of mode "kind": a symbolic link to the directory that
// stands for the rabbit's storage (contract clientmountd.md 7.4). It is for
// test clusters, where the daemon runs in a container.
func (r *runner) link() error {
	target, path := r.plan.LinkTo, r.plan.Path
	have, err := os.Readlink(path)
	switch {
	case err == nil && have == target:
		return nil
	case err == nil:
		return fmt.Errorf("%s links to %s, expected %s", path, have, target)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is in the way: %w", path, err)
	}
	if _, err := r.machine.MakeDirectory(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// unlink removes exactly that link.
func (r *runner) unlink() error {
	have, err := os.Readlink(r.plan.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case have != r.plan.LinkTo:
		return fmt.Errorf("%s links to %s, expected %s; left alone", r.plan.Path, have, r.plan.LinkTo)
	}
	return os.Remove(r.plan.Path)
}
