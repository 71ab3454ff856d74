package statedir

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile replaces a file by a complete new one (mode 0600) and makes its
// folder (mode 0700) if needed. Readers see the old or the new content, so a
// daemon that re-reads its token at any moment never gets half of one.
func WriteFile(path string, content []byte) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(folder, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // of no effect after the rename
	if _, err := tmp.Write(content); err != nil {
		tmp.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}
