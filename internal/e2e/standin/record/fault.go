package record

import (
	"slices"
	"strings"
	"time"
)

// Fault is one way for a stand-in to misbehave. The zero fault does nothing.
type Fault struct {
	Tool  string `json:"tool"`            // name of the stand-in
	Match string `json:"match,omitempty"` // only calls whose arguments contain this
	Skip  int    `json:"skip,omitempty"`  // let this many matching calls pass first
	Times int    `json:"times,omitempty"` // play it so often; 0 means always
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
