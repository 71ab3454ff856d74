package clientmount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/node"
)

// RecordsDirectory is where the records are, below a runtime directory.
func RecordsDirectory(runtimeDir string) string { return filepath.Join(runtimeDir, "mounts") }

// Mounted is what the records contain about mounts that are in place.
type Mounted struct {
	Objects    int // records, one for each ClientMount, with at least one mount in place
	Unreadable int // records that cannot be used: something may be mounted
}

// Table shows what is mounted at exactly a path, as node.Node does.
type Table interface {
	MountsOn(path string) ([]node.Mount, error)
}

// ReadMounted counts records with mounts in place. It changes nothing and touches
// no mount: the record must list one, and the mount table must show it. If
// the table cannot be read the record decides alone. No directory is no mount.
func ReadMounted(runtimeDir string, table Table) (Mounted, error) {
	dir := RecordsDirectory(runtimeDir)
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Mounted{}, nil
	case err != nil:
		return Mounted{}, fmt.Errorf("records cannot be read: %w", err)
	}
	var m Mounted
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue // one that is half written was never in force
		}
		r, err := readRecord(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			m.Unreadable++
		case slices.ContainsFunc(r.Mounts, func(one MountRecord) bool { return one.inPlace(table) }):
			m.Objects++
		}
	}
	return m, nil
}

// inPlace reports whether the recorded mount is there.
func (m *MountRecord) inPlace(table Table) bool {
	if m.Unmounted || m.Mounted == nil && !m.Mounting && !m.Ready {
		return false
	}
	on, err := table.MountsOn(m.Plan.Path)
	return err != nil || slices.ContainsFunc(on, func(one node.Mount) bool {
		return m.Mounted == nil || m.Mounted.is(one) || m.Mounted.Device == one.Device().String()
	})
}
