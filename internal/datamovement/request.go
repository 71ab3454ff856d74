package datamovement

import (
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// WorkflowRef names a workflow.
type WorkflowRef struct{ Name, Namespace string }

// Request is a wish to copy, of either version of the protocol. Slots of -1
// mean "as in the profile", 0 means none.
type Request struct {
	Workflow            WorkflowRef
	Source, Destination string
	Dryrun              bool
	DCPOptions          string
	MPIRunOptions       string
	LogStdout           bool
	StoreStdout         bool
	Slots, MaxSlots     int32
	Profile             string // empty: the default profile
	Key                 string // of the caller's choice: a repeated request with it makes no second movement
	Batch               string // handle of the batch that the request is part of
}

// maxSlots is more than any rabbit has; the number goes into an MPI hostfile.
const maxSlots = 65536

// Names of fields in the protocol.
const (
	fieldSource        = "source"
	fieldDestination   = "destination"
	fieldDCPOptions    = "dcpOptions"
	fieldMPIRunOptions = "mpirunOptions"
	fieldSlots         = "slots"
	fieldMaxSlots      = "maxSlots"
	fieldProfile       = "profile"
	fieldUID           = "uid"
	fieldKey           = "request_key"
	fieldWorkflow      = "workflow"
)

// Check refuses a request that is wrong in itself, before anything is asked of
// the API server. The error is a Fault that names the field.
func (r *Request) Check(o *Options) error {
	if err := r.Workflow.Check(); err != nil {
		return err
	}
	for _, p := range []struct{ field, value string }{{fieldSource, r.Source}, {fieldDestination, r.Destination}} {
		if _, err := parsePath(p.field, p.value); err != nil {
			return err
		}
	}
	if err := o.CheckDCP(r.DCPOptions); err != nil {
		return err
	}
	if err := o.CheckMPIRun(r.MPIRunOptions); err != nil {
		return err
	}
	for _, s := range []struct {
		field string
		value int32
	}{{fieldSlots, r.Slots}, {fieldMaxSlots, r.MaxSlots}} {
		if s.value < -1 || s.value > maxSlots {
			return refused(s.field, strconv.Itoa(int(s.value)), "-1 is as in the profile, 0 is none, at most 65536 are allowed")
		}
	}
	if r.Slots > 0 && r.MaxSlots > 0 && r.MaxSlots < r.Slots {
		return refused(fieldMaxSlots, strconv.Itoa(int(r.MaxSlots)), "it is less than slots, "+strconv.Itoa(int(r.Slots)))
	}
	if r.Profile != "" && !dnsName(r.Profile) {
		return refused(fieldProfile, r.Profile, nameRule)
	}
	if r.Key != "" && !labelValue(r.Key) {
		return refused(fieldKey, r.Key, "a key has 1 to 63 of A-Z a-z 0-9 . _ - and starts and ends with a letter or digit")
	}
	return nil
}

const (
	nameRule      = "a name has 1 to 253 of a-z 0-9 - and . and starts and ends with a letter or digit"
	namespaceRule = "a namespace has 1 to 63 of a-z 0-9 - and starts and ends with a letter or digit"
)

// Check refuses what cannot name a workflow.
func (w WorkflowRef) Check() error {
	switch {
	case w.Name == "" && w.Namespace == "":
		return invalid(fieldWorkflow, "workflow is missing: give its name and namespace, a job has them in DW_WORKFLOW_NAME and DW_WORKFLOW_NAMESPACE")
	// The name becomes a label's value, which is shorter than an object's name.
	case !dnsName(w.Name) || len(w.Name) > 63:
		return refused("workflow.name", w.Name, "a workflow's name has 1 to 63 of a-z 0-9 - and . and starts and ends with a letter or digit")
	case !dnsLabel(w.Namespace):
		return refused("workflow.namespace", w.Namespace, namespaceRule)
	}
	return nil
}

// CheckOptional is Check for requests that may name no workflow, or only half
// of it, as early clients do.
func (w WorkflowRef) CheckOptional() error {
	if w.Name == "" {
		w.Name = "x"
	}
	if w.Namespace == "" {
		w.Namespace = "x"
	}
	return w.Check()
}

// CheckUID refuses what cannot be the name of a movement, which uid is. Names of
// others pass: they are looked up, so that they look like any missing one.
func CheckUID(uid string) error {
	if uid == "" {
		return invalid(fieldUID, "uid is missing: Create returns it")
	}
	if !dnsName(uid) {
		return refused(fieldUID, uid, nameRule)
	}
	return nil
}

// Namespace returns where the movement of that uid lives: in the rabbit's own
// namespace, or in the one that all rabbits share.
func Namespace(uid, rabbit string) string {
	if strings.HasPrefix(uid, nnf.PrefixNodeMovement) {
		return rabbit
	}
	return nnf.NamespaceDataMovement
}

// slots returns what goes into the object: nothing when the profile decides.
func slots(n int32) *int32 {
	if n < 0 {
		return nil
	}
	return &n
}
