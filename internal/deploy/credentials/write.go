package credentials

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Written is the result of writing one file.
type Written struct {
	Path   string
	Change string // New, Changed or Unchanged
}

// The values of Written.Change.
const (
	New       = "new"
	Changed   = "changed"
	Unchanged = "unchanged"
)

// Write writes the credentials to the directory dir, which it creates with mode 0700 if it
// does not exist. The files have mode 0600 from the start, and get their final names when
// both are on the disk. Write replaces a symbolic link in place of a file, and never
// follows it.
func (c *Credentials) Write(dir string) ([]Written, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return nil, err
	}
	if safepath.EntryOf(info).ReplaceableBy(safepath.Everybody) {
		return nil, fmt.Errorf("every user can write to the directory %s, so its files could not be trusted: run chmod o-w %s", dir, dir)
	}
	files := []struct {
		name string
		data []byte
	}{{product.TokenFile, []byte(c.Token)}, {product.CertFile, c.CA}}
	var done []Written
	staged := make(map[string]string) // final name by temporary one
	defer func() {
		for temporary := range staged {
			_ = root.Remove(temporary) // after an error
		}
	}()
	for _, f := range files {
		w := Written{Path: filepath.Join(dir, f.name)}
		if w.Change, err = compare(root, f.name, f.data); err != nil {
			return nil, fmt.Errorf("%s: %w", w.Path, err)
		}
		done = append(done, w)
		if w.Change == Unchanged {
			continue
		}
		temporary := "." + f.name + "." + rand.Text()[:8]
		staged[temporary] = f.name
		if err := stage(root, temporary, f.data); err != nil {
			return nil, fmt.Errorf("%s: %w", w.Path, err)
		}
	}
	for temporary, final := range staged {
		if err := root.Rename(temporary, final); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, final), err)
		}
		delete(staged, temporary)
	}
	if d, err := root.Open("."); err == nil {
		err = d.Sync()
		d.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
	}
	return done, nil
}

// compare returns the change that is needed so that the file has data and mode 0600.
func compare(root *os.Root, name string, data []byte) (string, error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return New, nil
	case err != nil:
		return "", err
	case info.IsDir():
		return "", errors.New("a directory has this name")
	case !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 || info.Size() != int64(len(data)):
		return Changed, nil
	}
	if have, err := root.ReadFile(name); err != nil || !bytes.Equal(have, data) {
		return Changed, nil
	}
	return Unchanged, nil
}

// stage creates a file, and syncs it to the disk.
func stage(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
