// Package record is what the lab and its stand-in programs share: the
// volumes and NVMe namespaces that pretend to exist, the faults, and
// the log of calls. Everything is a file below one directory, so that the state
// survives any process and any of them may be killed at any point.
//
// It must not know what reads the state, nor how a volume is made.
package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// State is the machine that the stand-ins simulate.
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

// Dir is the directory that holds the state.
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

// Call is one run of a stand-in. End is zero and Exit is -1 while it runs and
// for ever when it was killed.
type Call struct {
	ID    string            `json:"id"`
	Tool  string            `json:"tool"`
	Argv  []string          `json:"argv"`
	Env   map[string]string `json:"env,omitempty"`
	PID   int               `json:"pid"`
	PPID  int               `json:"ppid"`
	Start time.Time         `json:"start"`
	End   time.Time         `json:"end,omitzero"`
	Exit  int               `json:"exit"`
}

// Append adds one line to the log. A call is written twice, at its start and
// at its end; each is one write, so lines of parallel calls do not mix.
func (d Dir) Append(c Call) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// Calls returns every call in order of its start.
func (d Dir) Calls() ([]Call, error) {
	data, err := os.ReadFile(d.LogPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var calls []Call
	at := map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var c Call
		if json.Unmarshal(lines.Bytes(), &c) != nil {
			continue // a line cut by a kill
		}
		if i, seen := at[c.ID]; seen {
			calls[i] = c
			continue
		}
		at[c.ID] = len(calls)
		calls = append(calls, c)
	}
	return calls, lines.Err()
}

// Fault is one way for a stand-in to misbehave. The zero fault does nothing.
type Fault struct {
	Tool  string `json:"tool"`            // name of the stand-in
	Match string `json:"match,omitempty"` // only calls whose arguments contain this
	Skip  int    `json:"skip,omitempty"`  // let this many matching calls pass first
	Times int    `json:"times,omitempty"` // have it so often; 0 means always
	After bool   `json:"after,omitempty"` // do the work first, then misbehave

	Delay      time.Duration `json:"delay,omitempty"`
	Exit       int           `json:"exit,omitempty"`
	Stderr     string        `json:"stderr,omitempty"`
	Report     string        `json:"report,omitempty"`     // write this where the report goes
	Hang       bool          `json:"hang,omitempty"`       // for ever, TERM, HUP and INT ignored
	Touch      string        `json:"touch,omitempty"`      // make this file; on a frozen file system nothing ends the call
	Grandchild bool          `json:"grandchild,omitempty"` // leave a child that holds the output pipes
	FloodBytes int64         `json:"floodBytes,omitempty"` // write so much to stdout
	Suicide    bool          `json:"suicide,omitempty"`    // end by SIGKILL
	KillPID    int           `json:"killPID,omitempty"`    // send SIGKILL to this process first
	Gate       string        `json:"gate,omitempty"`       // wait until this file exists

	Used int `json:"used,omitempty"` // calls that matched so far
}

// Take returns a copy of the fault that the call meets, if any, and counts it.
func (d Dir) Take(tool string, args []string) (*Fault, error) {
	if s, err := d.Load(); err != nil || len(s.Faults) == 0 {
		return nil, err // the common case takes no lock
	}
	var hit *Fault
	line := strings.Join(args, " ")
	err := d.Update(func(s *State) error {
		i := slices.IndexFunc(s.Faults, func(f *Fault) bool {
			return f.Tool == tool && strings.Contains(line, f.Match) &&
				(f.Times == 0 || f.Used < f.Skip+f.Times)
		})
		if i < 0 {
			return nil
		}
		s.Faults[i].Used++
		if c := *s.Faults[i]; c.Used > c.Skip {
			hit = &c
		}
		return nil
	})
	return hit, err
}
