// Package record is what the laboratory and its stand-in programs share: the
// volumes and NVMe namespaces that pretend to exist, the faults to play, and
// the log of calls. Everything is a file below one folder, so that the state
// survives any process and any of them may be killed at any point.
//
// It must not know what reads the state, nor how a volume is made.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// State is the machine that the stand-ins play.
type State struct {
	Volumes    []*Volume    `json:"volumes,omitempty"`
	Namespaces []*Namespace `json:"namespaces,omitempty"`
	Locks      []string     `json:"locks,omitempty"`  // volume groups whose lockspace is started
	Faults     []*Fault     `json:"faults,omitempty"` // first match wins
	NVMeLayout int          `json:"nvmeLayout,omitempty"`
	Shown      Sources      `json:"shown,omitempty"`
	Real       Real         `json:"real"`
}

// Real names the machine's own programs, found before the stand-ins took
// their place.
type Real struct {
	Mount  string `json:"mount,omitempty"`
	Umount string `json:"umount,omitempty"`
}

// Volume is one logical volume.
type Volume struct {
	VG     string `json:"vg"`
	LV     string `json:"lv"`
	Shared bool   `json:"shared,omitempty"` // needs a started lockspace
	Active bool   `json:"active,omitempty"`

	// Node is the path that activation makes. Major and Minor are the block
	// device behind it; Bind, when set, is a file that is bind-mounted over the
	// node instead, for machines where device nodes cannot be made.
	Node  string `json:"node"`
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`
	Bind  string `json:"bind,omitempty"`
	Plain bool   `json:"plain,omitempty"` // the node is an ordinary file

	Appears time.Time     `json:"appears,omitzero"`   // unknown to LVM before
	Late    time.Duration `json:"nodeLate,omitempty"` // node comes this long after activation
	NQN     string        `json:"nqn,omitempty"`      // namespace that backs it, if any
	NSID    int           `json:"nsid,omitempty"`
}

// Sources are the sources that mount helpers are asked for, and those that the
// mount table shows instead.
type Sources map[string]string

// Namespace is one NVMe namespace.
type Namespace struct {
	NQN  string `json:"nqn"`
	NSID int    `json:"nsid"`

	// A namespace that needs a rescan is missing until Late after the first one.
	NeedsRescan bool          `json:"needsRescan,omitempty"`
	Late        time.Duration `json:"late,omitempty"`
	Appears     time.Time     `json:"appears,omitzero"`
}

// Present tells whether the kernel would show the namespace at the time.
func (n *Namespace) Present(now time.Time) bool {
	return !n.NeedsRescan && !now.Before(n.Appears)
}

// Visible tells whether LVM would know the volume at the time: it has appeared
// and so has the namespace below it.
func (s *State) Visible(v *Volume, now time.Time) bool {
	if now.Before(v.Appears) {
		return false
	}
	for _, n := range s.Namespaces {
		if v.NQN != "" && n.NQN == v.NQN && n.NSID == v.NSID {
			return n.Present(now)
		}
	}
	return true
}

// Group returns the visible volumes of a volume group.
func (s *State) Group(vg string, now time.Time) (vols []*Volume) {
	for _, v := range s.Volumes {
		if v.VG == vg && s.Visible(v, now) {
			vols = append(vols, v)
		}
	}
	return vols
}

// Dir is the folder that holds the state.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// LogPath is the file that calls are appended to.
func (d Dir) LogPath() string { return d.path("calls.log") }

// Load returns the state as it is now.
func (d Dir) Load() (*State, error) {
	var s State
	data, err := os.ReadFile(d.path("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", d.path("state.json"), err)
	}
	return &s, nil
}

// Update changes the state under an exclusive lock. The file is replaced
// whole, so a reader never sees half of it. Nothing is written when change
// returns an error.
func (d Dir) Update(change func(*State) error) error {
	lock, err := os.OpenFile(d.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	for {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	s, err := d.Load()
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.path("state.new"), data, 0o600); err != nil {
		return err
	}
	return os.Rename(d.path("state.new"), d.path("state.json"))
}
