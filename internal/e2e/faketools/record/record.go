// Package record stores the state that the lab and the fake tools share: the simulated
// volumes and NVMe namespaces, the faults, and the log of calls. The state is in files in
// one directory, so that any process may be killed at any time.
//
// It must not know what uses the state, nor how volumes are created.
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

// State is the state of the machine that the fake tools simulate.
type State struct {
	Volumes    []*Volume    `json:"volumes,omitempty"`
	Namespaces []*Namespace `json:"namespaces,omitempty"`
	Locks      []string     `json:"locks,omitempty"`  // volume groups with a started lockspace
	Faults     []*Fault     `json:"faults,omitempty"` // the first match is used
	NVMeLayout int          `json:"nvmeLayout,omitempty"`
	Shown      Sources      `json:"shown,omitempty"`
	Real       Real         `json:"real"`
}

// Real has the paths of the real programs, which the fake tools replace.
type Real struct {
	Mount  string `json:"mount,omitempty"`
	Umount string `json:"umount,omitempty"`
}

// Volume is a logical volume.
type Volume struct {
	VG     string `json:"vg"`
	LV     string `json:"lv"`
	Shared bool   `json:"shared,omitempty"` // needs a started lockspace
	Active bool   `json:"active,omitempty"`

	// Node is the path of the device node while the volume is active. Major and Minor
	// are its device numbers. If Bind is set, this file is bind-mounted on the node
	// instead, for machines where device nodes cannot be created.
	Node  string `json:"node"`
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`
	Bind  string `json:"bind,omitempty"`
	Plain bool   `json:"plain,omitempty"` // the node is a regular file

	Appears time.Time     `json:"appears,omitzero"`   // invisible to LVM until then
	Late    time.Duration `json:"nodeLate,omitempty"` // the node appears this long after the activation
	NQN     string        `json:"nqn,omitempty"`      // NVMe namespace of the volume, if any
	NSID    int           `json:"nsid,omitempty"`
}

// Sources maps the sources that mount helpers get to the sources that they mount.
type Sources map[string]string

// Namespace is an NVMe namespace.
type Namespace struct {
	NQN  string `json:"nqn"`
	NSID int    `json:"nsid"`

	// A namespace that needs a rescan is missing until Late after the first one.
	NeedsRescan bool          `json:"needsRescan,omitempty"`
	Late        time.Duration `json:"late,omitempty"`
	Appears     time.Time     `json:"appears,omitzero"`
}

// Present reports whether the kernel shows the namespace at the given time.
func (n *Namespace) Present(now time.Time) bool {
	return !n.NeedsRescan && !now.Before(n.Appears)
}

// Visible reports whether LVM shows the volume at the given time: the volume and its
// namespace have appeared.
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

// Dir is the directory of the state.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// LogPath returns the path of the log of calls.
func (d Dir) LogPath() string { return d.path("calls.log") }

// Load returns the current state.
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

// Update changes the state under an exclusive lock. It replaces the file atomically. If
// change returns an error, nothing is written.
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

// Call is a call of a fake tool. While it runs, and if it was killed, End is zero and
// Exit is -1.
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

// Append adds a line to the log. A call is written at its start and at its end, each
// with a single write, so that lines of concurrent calls do not mix.
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

// Calls returns the calls, ordered by start.
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
			continue // an incomplete line of a killed process
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

// Fault is an injected fault of a fake tool. The zero value does nothing.
type Fault struct {
	Tool  string `json:"tool"`            // name of the fake tool
	Match string `json:"match,omitempty"` // only calls with arguments that contain this
	Skip  int    `json:"skip,omitempty"`  // number of matching calls to skip
	Times int    `json:"times,omitempty"` // number of calls with the fault; 0: all
	After bool   `json:"after,omitempty"` // run the tool first, then inject the fault

	Delay      time.Duration `json:"delay,omitempty"`
	Exit       int           `json:"exit,omitempty"`
	Stderr     string        `json:"stderr,omitempty"`
	Report     string        `json:"report,omitempty"`     // write this as the report
	Hang       bool          `json:"hang,omitempty"`       // never exit, and ignore SIGTERM, SIGHUP and SIGINT
	Touch      string        `json:"touch,omitempty"`      // create this file; on a frozen file system the call cannot be killed
	Grandchild bool          `json:"grandchild,omitempty"` // leave a child that has the output pipes
	FloodBytes int64         `json:"floodBytes,omitempty"` // write this many bytes to stdout
	KillSelf   bool          `json:"killSelf,omitempty"`   // exit by SIGKILL
	KillPID    int           `json:"killPID,omitempty"`    // send SIGKILL to this process first
	Barrier    string        `json:"barrier,omitempty"`    // wait until this file exists

	Used int `json:"used,omitempty"` // calls that matched so far
}

// Take returns a copy of the fault that matches the call, if any, and counts it.
func (d Dir) Take(tool string, args []string) (*Fault, error) {
	if s, err := d.Load(); err != nil || len(s.Faults) == 0 {
		return nil, err // the common case, without a lock
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
