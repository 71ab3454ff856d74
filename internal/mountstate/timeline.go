package mountstate

import (
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// TimelineVersion is the version of the layout of Timeline.
const TimelineVersion = 1

// Timeline is the output of "clientmountd timeline -o json".
type Timeline struct {
	Version int       `json:"version"`
	Node    string    `json:"node"`
	Time    time.Time `json:"time"`  // when the document was made
	Lives   []Life    `json:"lives"` // in the order of their start
}

// Life is what clientmountd has done for one ClientMount, from the first attempt to mount until
// the record is removed.
type Life struct {
	ClientMount string     `json:"clientmount"`
	UID         string     `json:"uid"`
	Workflow    string     `json:"workflow,omitempty"`
	Started     time.Time  `json:"started"`
	Ready       *time.Time `json:"ready,omitempty"` // when all its mounts were ready; absent: not yet
	Ended       *time.Time `json:"ended,omitempty"` // absent: it has a record
	Steps       []Step     `json:"steps"`           // in the order of their start
	Dropped     int        `json:"dropped,omitempty"`
}

// Kinds of steps.
const (
	StepHook     = "hook"     // a command of the storage profile
	StepActivate = "activate" // activation or deactivation of a volume, and its locks
	StepWait     = "wait"     // waiting for a volume group or a device
	StepMount    = "mount"    // mount, unmount, and the owner of the mount
	StepAPI      = "api"      // a request to the API server
	StepRetry    = "retry"    // the pause before the next attempt
)

// Kinds lists all kinds of steps in the order of a legend.
var Kinds = []string{StepAPI, StepHook, StepActivate, StepWait, StepMount, StepRetry}

// Names of the steps that are not in the plan of a mount. Those of requests are NameRead, NameWrite
// and NameServed.
const (
	NameServed = "find served version"
	NameRescan = "rescan"
	NameRetry  = "pause before a retry"
)

// NameRead returns the name of the request that reads an object of this kind.
func NameRead(kind string) string { return "read " + kind }

// NameWrite returns the name of the request that writes a subresource of the ClientMount, or its
// finalizers.
func NameWrite(subresource string) string {
	if subresource == "" {
		subresource = "finalizers"
	}
	return "write " + subresource
}

// Step is one step of a life. Repetitions of a step that failed are one Step.
type Step struct {
	Path     string    `json:"path,omitempty"` // of the mount; absent: it concerns the ClientMount
	Phase    string    `json:"phase"`          // mount or unmount
	Kind     string    `json:"kind"`           // one of the Step constants
	Name     string    `json:"name"`           // unique within a phase of a mount
	Started  time.Time `json:"started"`        // the first try
	Seconds  float64   `json:"seconds"`        // of all tries together
	Tries    int       `json:"tries"`
	Failed   bool      `json:"failed,omitempty"` // the last try failed
	Error    string    `json:"error,omitempty"`  // of the last try that failed, shortened
	Finished time.Time `json:"finished"`         // the end of the last try
}

// ParseTimeline parses the output of "clientmountd timeline -o json".
func ParseTimeline(data []byte) (*Timeline, error) {
	return text.ParseJSON[Timeline](data, TimelineVersion)
}
