package clientmount

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// daemonState is what the commands that report about the node read about the daemon. The file is
// written when the daemon starts and stops, and when the API server answers or no longer answers.
type daemonState struct {
	Version  int        `json:"version"`
	Node     string     `json:"node"`
	PID      int        `json:"pid"`
	Start    string     `json:"start"` // of the process, see node.ProcessStart
	Started  time.Time  `json:"started"`
	Stopped  *time.Time `json:"stopped,omitempty"` // absent: it runs or was killed
	API      string     `json:"api"`               // of mountstate.Daemon
	APISince time.Time  `json:"api_since"`
	APIError string     `json:"api_error,omitempty"`

	Token *mountstate.Token `json:"token,omitempty"`
}

const (
	daemonStateVersion = 1
	daemonStateName    = "daemon.json"
	daemonStateLimit   = 64 << 10 // bytes
)

func newDaemonState(node string, start string) *daemonState {
	now := time.Now()
	return &daemonState{
		Version: daemonStateVersion, Node: node, PID: os.Getpid(), Start: start, Started: now, API: mountstate.APIConnecting, APISince: now,
	}
}

// save writes the file atomically.
func (s *daemonState) save(runtimeDir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	name := filepath.Join(runtimeDir, daemonStateName)
	if err := replaceFile(name, data, nil); err != nil {
		return fmt.Errorf("cannot save the state of the daemon: %w", err)
	}
	return nil
}

// readDaemonState returns the state of the last daemon; without a file, the zero value.
func readDaemonState(runtimeDir string) (s daemonState, err error) {
	name := filepath.Join(runtimeDir, daemonStateName)
	data, err := readOwnFile(name, daemonStateLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("the state of the daemon cannot be read: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s is damaged: %w", name, err)
	}
	if s.Version != daemonStateVersion {
		return s, fmt.Errorf("%s has version %d and this clientmountd reads version %d", name, s.Version, daemonStateVersion)
	}
	return s, nil
}

// describe returns the state for programs.
func (s *daemonState) describe() mountstate.Daemon {
	d := mountstate.Daemon{API: mountstate.APIUnknown}
	switch {
	case s.PID > 0 && s.Start != "" && node.ProcessStart(s.PID) == s.Start:
		d.Running, d.PID, d.Since = true, s.PID, &s.Started
		d.API, d.APISince, d.APIError, d.Token = s.API, &s.APISince, s.APIError, s.Token
	case s.Stopped != nil:
		d.Since = s.Stopped
	}
	return d
}

// setAPI updates the state of the connection, and reports whether it has changed.
func (s *daemonState) setAPI(now kube.State) bool {
	api, message := mountstate.APIConnecting, ""
	switch {
	case now.Connected:
		api = mountstate.APIConnected
	case now.LastError != nil:
		api, message = mountstate.APIUnreachable, text.Line(text.Shorten(now.LastError.Error(), stepErrorLimit))
	}
	if s.API == api {
		return false // the error of the same outage may differ each time
	}
	s.API, s.APIError, s.APISince = api, message, time.Now()
	return true
}

// setToken updates the state of the token.
func (s *daemonState) setToken(now kube.TokenState) { s.Token = daemon.DescribeToken(now, s.Token) }

// ReadToken returns what the running daemon knows about its token, or nil.
func ReadToken(runtimeDir string) *mountstate.Token {
	s, err := readDaemonState(runtimeDir)
	if err != nil {
		return nil
	}
	return s.describe().Token
}

// ReadMoverToken returns what nnf-dm has recorded about its token, or nil. root is the prefix of its
// default paths.
func ReadMoverToken(root string) *mountstate.Token {
	t, err := daemon.RecordOf(root, "nnf-dm").Read(time.Now())
	if err != nil {
		return &mountstate.Token{Condition: mountstate.TokenUnknown, Error: err.Error()}
	}
	return t
}

// StateDirectories returns the directories whose files ReadMounts reads: if none of them changes, no
// ClientMount changes.
func StateDirectories(runtimeDir string) []string {
	return []string{RecordsDirectory(runtimeDir), failuresDirectory(runtimeDir)}
}

// ReadMounts returns the mounts in the records below a runtime directory, and their commands on a
// node. It works without the daemon, changes nothing and touches no mount. Without a directory of
// records it returns no mounts.
func ReadMounts(runtimeDir string, n *node.Node) (*mountstate.Mounts, error) {
	doc := &mountstate.Mounts{Version: mountstate.MountsVersion, Time: time.Now(), Mounts: []mountstate.Mount{}}
	state, err := readDaemonState(runtimeDir)
	if err != nil {
		return nil, err
	}
	doc.Node, doc.Daemon, doc.MoverToken = state.Node, state.describe(), ReadMoverToken(n.Root)
	records, problems, err := readAllRecords(runtimeDir)
	if err != nil {
		return nil, err
	}
	doc.Unreadable = problems
	slices.SortFunc(records, func(a, b *Record) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID)) })
	ctx, cancel := context.WithTimeout(context.Background(), processesLimit)
	defer cancel()
	processes, err := n.Marked(ctx, MarkVariable)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	for _, r := range records {
		own := commandsOf(processes, r.UID, state.PID, doc.Time)
		// The steps of a ClientMount run for the mounts that are not in their desired state.
		works := slices.ContainsFunc(r.Mounts, MountRecord.works)
		for i := range r.Mounts {
			m, commands := &r.Mounts[i], own
			if works && !m.works() {
				commands = nil
			}
			doc.Mounts = append(doc.Mounts, r.describe(m, commands, n, doc.Time))
		}
		for i := range r.Unplanned {
			if r.Orphan == nil {
				doc.Mounts = append(doc.Mounts, r.describe(&r.Unplanned[i], nil, n, doc.Time))
			}
		}
	}
	return doc, nil
}

// processesLimit bounds the time for reading /proc, on a node with very many processes.
const processesLimit = 500 * time.Millisecond

// condition is what the state of a mount depends on. The records and the metrics know it from
// different sources; the state that follows from it is the same.
type condition struct {
	orphan     bool   // its ClientMount no longer exists
	unmounted  bool   // the unmount is complete
	unmounting bool   // it is to be unmounted
	ready      bool   // the mount is complete
	hangs      bool   // a command for it waits in the kernel
	failure    string // kind of the failure of the last attempt; empty: none
}

// state returns the state of a mount. A failed request to the API server changes nothing on the
// node, so it is no failure of the mount.
func (c condition) state() mountstate.State {
	switch {
	case c.unmounted:
		return mountstate.Unmounted
	case c.orphan:
		return mountstate.Orphan
	case c.hangs || c.failure == mountstate.FailureStuck:
		return mountstate.Stuck
	case c.failure == mountstate.FailureBusy:
		return mountstate.Busy
	case c.failure != "" && c.failure != mountstate.FailureAPI:
		return mountstate.Failed
	case c.unmounting:
		return mountstate.Unmounting
	case c.ready:
		return mountstate.Mounted
	}
	return mountstate.Mounting
}

// works reports whether the mount is not in its desired state.
func (m MountRecord) works() bool { return !m.Unmounted && (m.Unmounting || !m.Ready) }

// describe returns the state of a mount. own are the running commands for it.
func (r *Record) describe(m *MountRecord, own []mountstate.Command, n *node.Node, now time.Time) mountstate.Mount {
	one := mountstate.Mount{
		ClientMount: r.Name, UID: r.UID, Workflow: r.Workflow, Path: m.Plan.Path, Type: m.Plan.Type, Device: cmp.Or(m.Plan.Device, m.Plan.Source()),
		Since: m.Since, Failure: m.Failure, Holders: m.Holders, Commands: own,
	}
	if one.Since.IsZero() { // written by an older version
		one.Since = r.Created
	}
	c := condition{orphan: r.Orphan != nil, unmounted: m.Unmounted, unmounting: m.Unmounting, ready: m.Ready}
	switch {
	case c.unmounted:
		one.State, one.Commands = c.state(), nil
		return one
	case c.orphan:
		one.Since = *r.Orphan
	case c.unmounting:
		one.Phase = mountstate.PhaseUnmount
	case !c.ready:
		one.Phase = mountstate.PhaseMount
	}
	switch {
	case one.Phase != "" && r.Failure != nil && (r.at(m.Plan.Path) != m || r.failsAsAWhole()): // an unplanned mount has no other failure
		one.Failure = r.Failure
	case one.Phase == "" && !c.orphan && one.Failure == nil && m.Mounted != nil && n.DeviceGone(m.Mounted.Device):
		one.Failure = &mountstate.Failure{Kind: mountstate.FailureDevice, Text: "the device " + m.Mounted.Device + " of the mounted file system no longer exists", Since: one.Since}
	}
	if one.Failure != nil {
		c.failure = one.Failure.Kind
	}
	kernel := slices.IndexFunc(own, func(c mountstate.Command) bool { return c.Kernel && now.Sub(c.Started) > mountstate.StuckAfter })
	c.hangs = kernel >= 0
	switch one.State = c.state(); {
	case one.State == mountstate.Stuck && c.failure != mountstate.FailureStuck:
		one.Since = own[kernel].Started
	case slices.Contains([]mountstate.State{mountstate.Stuck, mountstate.Busy, mountstate.Failed}, one.State):
		one.Since = one.Failure.Since
	}
	return one
}

// failsAsAWhole reports whether the failure of the last attempt concerns all mounts of the
// ClientMount: it was refused, or no step of a mount has failed.
func (r *Record) failsAsAWhole() bool {
	return r.Failure.Kind == mountstate.FailureRefused ||
		!slices.ContainsFunc(r.Mounts, func(m MountRecord) bool { return m.Failure != nil })
}

// commandsOf returns the processes that run for a ClientMount. daemon is the process of the last
// daemon.
func commandsOf(list []node.Marked, uid string, daemon int, now time.Time) (out []mountstate.Command) {
	for _, c := range list {
		if c.Mark == uid {
			out = append(out, mountstate.Command{
				PID: c.PID, Program: c.Program, Line: c.Line, Started: now.Add(-c.Age), Kernel: c.Kernel, Waits: c.Waits, Daemon: c.Parent == daemon,
			})
		}
	}
	return out
}

// newFailure describes why a step or a whole attempt failed. before is the last failure: if it has
// the same kind and step, the new one has the same start.
func newFailure(before *mountstate.Failure, kind, step string, err error) *mountstate.Failure {
	f := &mountstate.Failure{Kind: kind, Step: step, Text: text.Line(text.Shorten(err.Error(), messageLimit)), Since: time.Now()}
	if before != nil && before.Kind == f.Kind && before.Step == f.Step {
		f.Since = before.Since
	}
	return f
}

// failureKind returns the kind of a failure.
func failureKind(err error) string {
	e := (*dws.ResourceError)(nil)
	switch {
	case hangs(err):
		return mountstate.FailureStuck
	case node.IsBusy(err) || node.IsInUse(err):
		return mountstate.FailureBusy
	case errors.As(err, &e) && e.Severity == dws.Fatal:
		return mountstate.FailureRefused
	case unanswered(err):
		return mountstate.FailureAPI
	case errors.Is(err, errNoLV) || errors.Is(err, node.ErrNoDevice) || errors.Is(err, node.ErrTimeoutVG):
		return mountstate.FailureDevice
	}
	return mountstate.FailureOther
}

// holderLimit bounds the text about a holder, in bytes. A user can choose a long path.
const holderLimit = 400

// holdersOf converts the holders of a mount.
func holdersOf(list []node.Holder) (out []mountstate.Holder) {
	for _, h := range list {
		out = append(out, mountstate.Holder{PID: h.PID, UID: h.UID, Command: text.Line(h.Command), Text: text.Clip(text.Line(h.String()), holderLimit)})
	}
	return out
}
