package datamovement

import (
	"cmp"
	"math"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// Caller is the user and process at the other end of the connection, identified
// by kernel peer credentials (SO_PEERCRED, unix(7)). Claims of the caller about
// itself are never used.
type Caller struct {
	UID, GID uint32
	PID      int32    // for log records only: the kernel reuses PIDs
	Groups   []uint32 // supplementary groups, nil on kernels that do not report them
	RPC      string   // full name of the called method, for log records
}

// Member reports whether gid is one of the caller's groups.
func (c Caller) Member(gid uint32) bool { return c.GID == gid || slices.Contains(c.Groups, gid) }

// Policy decides for this compute what a caller may do. The zero value of each
// switch is the strictest.
type Policy struct {
	Node            string // this compute's name, the initiator of every movement that callers may access
	RootMayAll      bool   // root may act for any workflow; copies still run with the workflow's IDs
	AllowRootCopies bool   // workflows of user or group 0 may copy, as root on the rabbit
	ListWorkflow    bool   // List includes movements that other computes have started
}

// Outcome is the decision of a check. The zero value is Hidden, so that a check
// that does not set it reveals nothing.
type Outcome int

// Outcomes.
const (
	Hidden  Outcome = iota // the caller must not learn that the object exists
	Denied                 // the caller may know that the object exists, and gets the reason
	Allowed                // the request proceeds
)

// String returns the outcome in lower case, for the audit record.
func (o Outcome) String() string {
	switch o {
	case Allowed:
		return "allowed"
	case Denied:
		return "denied"
	}
	return "hidden"
}

// Verdict is an outcome and its reason. The reason is written to the audit record;
// the caller never gets the reason of Hidden.
type Verdict struct {
	Outcome Outcome
	Reason  string
}

// Allowed reports whether the request proceeds.
func (v Verdict) Allowed() bool { return v.Outcome == Allowed }

// Err returns the error for the caller: nil if allowed; missing, the error for an
// object that does not exist, if hidden; the reason if denied.
func (v Verdict) Err(missing *Fault) error {
	switch v.Outcome {
	case Allowed:
		return nil
	case Denied:
		return NewFault(ErrDenied, v2.ErrorReason_ACCESS_DENIED, "%s", v.Reason)
	}
	return missing
}

func allow() Verdict               { return Verdict{Outcome: Allowed} }
func hide(reason string) Verdict   { return Verdict{Hidden, reason} }
func refuse(reason string) Verdict { return Verdict{Denied, reason} }

// overflowID is the ID that the kernel reports for IDs that the daemon's user
// namespace does not map (/proc/sys/kernel/overflowuid). It can be any user.
const overflowID = 65534

// owns reports whether the caller is the given user, or root if the policy lets
// root act for all users.
func (p Policy) owns(c Caller, uid int64) bool {
	if c.UID == 0 && p.RootMayAll {
		return true
	}
	return int64(c.UID) == uid && c.UID != overflowID
}

// Identity is the user and group that the rabbit copies as. It comes from the
// workflow, never from the request.
type Identity struct{ UID, GID uint32 }

// CreateFor decides whether the caller may create a movement for wf, and returns
// the identity of the copy: the workflow's user and group, even if root calls.
// A workflow of another user is Hidden. A workflow of the caller is Denied if
// copies for it are not allowed.
func (p Policy) CreateFor(c Caller, wf *dws.Workflow) (Identity, Verdict) {
	uid, gid := wf.Spec.UserID, wf.Spec.GroupID
	if !p.owns(c, uid) {
		return Identity{}, hide("the workflow belongs to another user")
	}
	// For setresuid(2) the largest number means "unchanged", which would be root.
	if uid < 0 || uid >= math.MaxUint32 || gid < 0 || gid >= math.MaxUint32 {
		return Identity{}, refuse("the user or group ID of the workflow is out of range: valid IDs are 0 to 4294967294")
	}
	if (uid == 0 || gid == 0) && !p.AllowRootCopies {
		return Identity{}, refuse("the workflow belongs to user or group 0, and copies as root are not allowed on this node")
	}
	// The workload manager writes the group into the workflow, but the user may have
	// requested a group of which they are not a member.
	if c.UID != 0 && !c.Member(uint32(gid)) {
		return Identity{}, refuse("the caller is not a member of the workflow's group")
	}
	return Identity{UID: uint32(uid), GID: uint32(gid)}, allow()
}

// CheckWorkflow returns an error for a workflow that is not ready for copies from
// compute nodes: it must have completed PreRun, and its deletion must not have
// been requested.
func CheckWorkflow(wf *dws.Workflow) error {
	if wf.Status.State != dws.StatePreRun || wf.Status.Status != dws.StatusCompleted || wf.DeletionTimestamp != nil {
		return failed(v2.ErrorReason_WORKFLOW_STATE, "Workflow must be in 'PreRun' state and 'Completed' status")
	}
	return nil
}

// Movement decides whether the caller may see, cancel and delete dm. The movement
// must have been started from this node, belong to a workflow, copy as the caller,
// and belong to the workflow in the request, if there is one. All other movements
// are Hidden, even from root: no caller may access those of the workflow controller
// (copy_in, copy_out) and of other compute nodes.
func (p Policy) Movement(c Caller, dm *nnf.DataMovement, requested WorkflowRef) Verdict {
	return p.movement(c, dm, requested, p.Node)
}

// Listed decides whether List returns dm. With ListWorkflow the movement may have
// been started from any compute node.
func (p Policy) Listed(c Caller, dm *nnf.DataMovement, requested WorkflowRef) Verdict {
	if p.ListWorkflow {
		return p.movement(c, dm, requested, dm.Labels[api.LabelInitiator])
	}
	return p.movement(c, dm, requested, p.Node)
}

func (p Policy) movement(c Caller, dm *nnf.DataMovement, requested WorkflowRef, node string) Verdict {
	l := dm.Labels
	initiator := l[api.LabelInitiator]
	switch {
	case initiator == "" || initiator == "copy_in" || initiator == "copy_out":
		return hide("the movement was not started from a compute node")
	case initiator != node:
		return hide("the movement was started from another node")
	case l[api.LabelOwnerKind] != dws.KindWorkflow:
		return hide("the movement is not owned by a workflow")
	case l[api.LabelOwnerName] == "" || l[api.LabelOwnerNamespace] == "" || l[api.LabelOwnerUID] == "":
		return hide("the movement's labels do not identify the workflow that owns it")
	case l[api.LabelOwnerName] != l[api.LabelWorkflowName] || l[api.LabelOwnerNamespace] != l[api.LabelWorkflowNamespace] ||
		l[api.LabelOwnerUID] != l[api.LabelWorkflowUID]:
		return hide("the movement's labels name two different workflows")
	case !p.owns(c, dm.Spec.UserID):
		return hide("the movement belongs to another user")
	// Early clients send no workflow.
	case requested.Name != "" && requested.Name != l[api.LabelOwnerName], requested.Namespace != "" && requested.Namespace != l[api.LabelOwnerNamespace]:
		return hide("the movement does not belong to the workflow in the request")
	}
	return allow()
}

// Selector returns the labels that select the movements of a workflow, of one node
// unless node is empty.
func Selector(w WorkflowRef, node string) map[string]string {
	out := map[string]string{api.LabelOwnerKind: dws.KindWorkflow, api.LabelOwnerName: w.Name, api.LabelOwnerNamespace: w.Namespace}
	if node != "" {
		out[api.LabelInitiator] = node
	}
	return out
}

// List returns the names of the movements that the caller may see, sorted by
// creation time (in seconds), then by name.
func (p Policy) List(c Caller, requested WorkflowRef, movements []*nnf.DataMovement) []string {
	var seen []*nnf.DataMovement
	for _, dm := range movements {
		if p.Listed(c, dm, requested).Allowed() {
			seen = append(seen, dm)
		}
	}
	slices.SortFunc(seen, func(a, b *nnf.DataMovement) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	names := make([]string, 0, len(seen))
	for _, dm := range seen {
		names = append(names, dm.Name)
	}
	return slices.Compact(names)
}
