// Package mountstate has the documents about the mounts of a node: clientmountd prints them with
// "-o json", and nnf-deploy parses those of many nodes. A document has a version. A field may be
// added to a version; the version changes if a field is removed or changes its meaning.
//
// The package must not know how the state is recorded, and reads nothing.
package mountstate

import (
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// MountsVersion is the version of the layout of Mounts.
const MountsVersion = 1

// Mounts is the output of "clientmountd mounts -o json".
type Mounts struct {
	Version int       `json:"version"`
	Node    string    `json:"node"`
	Time    time.Time `json:"time"` // when the document was made
	Daemon  Daemon    `json:"daemon"`
	Mounts  []Mount   `json:"mounts"` // sorted by ClientMount, then in the order of the mounts
	// Unreadable are the errors of records that cannot be used: something may be mounted.
	Unreadable []string `json:"unreadable,omitempty"`
	// MoverToken is what nnf-dm, which runs only while jobs need it, has recorded about its token;
	// absent: it has none of an account on this node only.
	MoverToken *Token `json:"nnf_dm_token,omitempty"`
}

// Daemon is the state of clientmountd on the node.
type Daemon struct {
	Running bool       `json:"running"`
	PID     int        `json:"pid,omitempty"`
	Since   *time.Time `json:"since,omitempty"` // when it started, or when it stopped; absent: unknown
	API     string     `json:"api"`             // one of the API constants
	// APISince is when the connection got into this state; absent: unknown.
	APISince *time.Time `json:"api_since,omitempty"`
	APIError string     `json:"api_error,omitempty"` // the last error of a connection that is down
	// Token is what the daemon knows about its token; absent: the daemon does not run, or its
	// credentials are not a token file.
	Token *Token `json:"token,omitempty"`
}

// Token is the state of the token of a daemon. Times are those of the API server.
type Token struct {
	Identity  string     `json:"identity"`          // account of the token: "per-node", "shared" or "other"
	Account   string     `json:"account,omitempty"` // user name in the token
	File      string     `json:"file,omitempty"`    // absent: only the daemon has it
	Expires   *time.Time `json:"expires,omitempty"` // absent: never
	Renewal   *time.Time `json:"renewal,omitempty"` // when the daemon requests the next token; absent: never
	Condition string     `json:"condition"`         // one of the Token constants
	Since     *time.Time `json:"since,omitempty"`   // start of the condition; absent if it is TokenValid
	Error     string     `json:"error,omitempty"`   // why the last renewal failed, or the token is not stored
	Hint      string     `json:"hint,omitempty"`    // what the administrator should do
}

// Values of Token.Condition.
const (
	TokenValid    = "valid"
	TokenRetrying = "retrying" // a renewal has failed, and less than half of the time for it has passed
	TokenFailing  = "failing"  // renewals fail, and more than half of the time for them has passed
	TokenExpired  = "expired"  // the API server refuses it; an administrator must install another one
	TokenUnsaved  = "unsaved"  // it was renewed and cannot be stored, so a restart would use an older one
	TokenUnknown  = "unknown"  // what the daemon has recorded cannot be read
)

// TokenConditions lists the values that a daemon can report.
var TokenConditions = []string{TokenValid, TokenRetrying, TokenFailing, TokenExpired, TokenUnsaved}

// Values of Daemon.API.
const (
	APIConnected   = "connected"
	APIConnecting  = "connecting"  // since the start of the daemon, without an error so far
	APIUnreachable = "unreachable" // the last request of the watch failed
	APIUnknown     = "unknown"     // the daemon does not run
)

// State is the state of a mount.
type State string

// The states of a mount.
const (
	Mounting   State = "mounting"   // being mounted, or waiting for a retry of an interrupted attempt
	Mounted    State = "mounted"    // mounted and ready
	Unmounting State = "unmounting" // being unmounted
	Unmounted  State = "unmounted"  // unmounted; the ClientMount still exists
	Failed     State = "failed"     // the last attempt failed; clientmountd retries
	Busy       State = "busy"       // to be unmounted, but processes keep it in use
	Stuck      State = "stuck"      // a command for it hangs in the kernel
	Orphan     State = "orphan"     // mounted, but its ClientMount no longer exists
)

// States lists all states, in the order of their urgency: the first is the most urgent.
var States = []State{Stuck, Orphan, Failed, Busy, Unmounting, Mounting, Unmounted, Mounted}

// StuckAfter is how long a command may wait in the kernel before its mount is shown as stuck, even if
// the time limit of the command has not expired. Health reports it later, after the grace period of
// CauseStuck, because a slow server is no reason to drain a node.
const StuckAfter = 30 * time.Second

// Phases of a mount, and of a step.
const (
	PhaseMount   = "mount"
	PhaseUnmount = "unmount"
)

// Mount is one mount of a ClientMount.
type Mount struct {
	ClientMount string    `json:"clientmount"`
	UID         string    `json:"uid"` // of the ClientMount
	Workflow    string    `json:"workflow,omitempty"`
	Path        string    `json:"path"`
	Type        string    `json:"type"`             // lustre, xfs, gfs2, raw, none
	Device      string    `json:"device,omitempty"` // device or server of the file system
	State       State     `json:"state"`
	Since       time.Time `json:"since"`              // when it got into this state
	Phase       string    `json:"phase,omitempty"`    // what is being done, or failed: mount or unmount
	Failure     *Failure  `json:"failure,omitempty"`  // of the last attempt
	Holders     []Holder  `json:"holders,omitempty"`  // of a busy mount, as last found
	Commands    []Command `json:"commands,omitempty"` // that run for it now, from /proc
}

// Kinds of failures.
const (
	FailureBusy    = "busy"    // processes keep the mount or the volume in use
	FailureStuck   = "stuck"   // a command hangs in the kernel
	FailureDevice  = "device"  // the device or volume group is missing, or has failed
	FailureAPI     = "api"     // a request to the API server failed
	FailureRefused = "refused" // the ClientMount or its profile is invalid: a retry does not help
	FailureOther   = "other"
)

// Failure is why the last attempt failed.
type Failure struct {
	Kind  string    `json:"kind"`           // one of the Failure constants
	Step  string    `json:"step,omitempty"` // the step that failed
	Text  string    `json:"text"`
	Since time.Time `json:"since"` // of the first attempt that failed in this way
}

// Holder is a process, or a part of the kernel, that keeps a mount in use.
type Holder struct {
	PID     int    `json:"pid,omitempty"` // 0: not a process
	UID     uint32 `json:"uid"`
	Command string `json:"command,omitempty"`
	Text    string `json:"text"` // for people
}

// Command is a running command of clientmountd for a ClientMount.
type Command struct {
	PID     int       `json:"pid"`
	Program string    `json:"program"`
	Line    string    `json:"line"`
	Started time.Time `json:"started"`
	Kernel  bool      `json:"kernel"`           // it waits in the kernel and cannot be killed (state D)
	Waits   string    `json:"waits,omitempty"`  // the function of the kernel in which it waits, if known
	Daemon  bool      `json:"daemon,omitempty"` // started by the daemon that runs now
}

// ParseMounts parses the output of "clientmountd mounts -o json".
func ParseMounts(data []byte) (*Mounts, error) {
	return text.ParseJSON[Mounts](data, MountsVersion)
}
