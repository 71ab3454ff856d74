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
// by kernel peer credentials (SO_PEERCRED, unix(7)). What a caller says about
// itself is never used.
type Caller struct {
	UID, GID uint32
	PID      int32    // for records alone: the kernel uses numbers again
	Groups   []uint32 // supplementary groups, nil on kernels that do not report them
	RPC      string   // full name of the called method, for records
}

// Member tells whether gid is one of the caller's groups.
func (c Caller) Member(gid uint32) bool { return c.GID == gid || slices.Contains(c.Groups, gid) }

// Policy decides for this compute what a caller may do. The zero value of each
// switch is the strictest.
type Policy struct {
	Node            string // this compute's name, the initiator of every movement that may be touched
	RootMayAll      bool   // root acts for any workflow; the copies still get the workflow's ids
	AllowRootCopies bool   // workflows of user or group 0 may copy, as root on the rabbit
	ListWorkflow    bool   // List shows what other computes have started too
}

// Outcome is what a check decides. The zero value hides, so that a check that
// does not set it reveals nothing.
type Outcome int

// Outcomes.
const (
	Hidden  Outcome = iota // the caller must not learn that the object exists
	Denied                 // the caller may know that it exists, and is told why
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

// Verdict is an outcome and its reason. Reason goes into the audit record; a
// caller never sees the one of Hidden.
type Verdict struct {
	Outcome Outcome
	Reason  string
}

// Allowed tells whether the request proceeds.
func (v Verdict) Allowed() bool { return v.Outcome == Allowed }

// Err returns the caller's error: nil when allowed, missing when hidden — the
// same error as for an object that does not exist — and the reason when denied.
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

// overflowID is what the kernel shows for an id that the daemon's user namespace
// does not map (/proc/sys/kernel/overflowuid). Any user may be behind it.
const overflowID = 65534

// owns tells whether the caller is the given user, or root if the policy lets
// root act for all.
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
// the identity that it copies as: the workflow's user and group, for root as
// well. A workflow of another user is Hidden; one of the caller that cannot be
// copied for is Denied.
func (p Policy) CreateFor(c Caller, wf *dws.Workflow) (Identity, Verdict) {
	uid, gid := wf.Spec.UserID, wf.Spec.GroupID
	if !p.owns(c, uid) {
		return Identity{}, hide("the workflow belongs to another user")
	}
	// setuid(2) takes the largest number for "leave as it is", which is root.
	if uid < 0 || uid >= math.MaxUint32 || gid < 0 || gid >= math.MaxUint32 {
		return Identity{}, refuse("the workflow's user or group is not an identity: 0 to 4294967294 are")
	}
	if (uid == 0 || gid == 0) && !p.AllowRootCopies {
		return Identity{}, refuse("the workflow is one of user or group 0, and copies as root are not allowed here")
	}
	// The workload manager wrote the group into the workflow; the job's user may
	// have asked for one that is not theirs.
	if c.UID != 0 && !c.Member(uint32(gid)) {
		return Identity{}, refuse("the caller is not a member of the workflow's group")
	}
	return Identity{UID: uint32(uid), GID: uint32(gid)}, allow()
}

// CheckWorkflow refuses a workflow that is not ready for copies from computes:
// it must have completed PreRun and must not be being deleted.
func CheckWorkflow(wf *dws.Workflow) error {
	if wf.Status.State != dws.StatePreRun || wf.Status.Status != dws.StatusCompleted || wf.DeletionTimestamp != nil {
		return failed(v2.ErrorReason_WORKFLOW_STATE, "Workflow must be in 'PreRun' state and 'Completed' status")
	}
	return nil
}

// Movement decides whether the caller may see, cancel and delete dm. It must
// have been started from this node, belong to a workflow, copy as the caller,
// and be of the workflow that the request names, if it names one. Everything
// else is Hidden, from root too: the workflow controller's own movements
// (copy_in, copy_out) and those of other computes must not be touched.
func (p Policy) Movement(c Caller, dm *nnf.DataMovement, asked WorkflowRef) Verdict {
	return p.movement(c, dm, asked, p.Node)
}

// Listed decides whether List shows dm. With ListWorkflow the node does not
// matter, but it must still be a compute's movement.
func (p Policy) Listed(c Caller, dm *nnf.DataMovement, asked WorkflowRef) Verdict {
	if p.ListWorkflow {
		return p.movement(c, dm, asked, dm.Labels[api.LabelInitiator])
	}
	return p.movement(c, dm, asked, p.Node)
}

func (p Policy) movement(c Caller, dm *nnf.DataMovement, asked WorkflowRef, node string) Verdict {
	l := dm.Labels
	initiator := l[api.LabelInitiator]
	switch {
	case initiator == "" || initiator == "copy_in" || initiator == "copy_out":
		return hide("the movement was not started from a compute")
	case initiator != node:
		return hide("the movement was started from another node")
	case l[api.LabelOwnerKind] != dws.KindWorkflow:
		return hide("the movement is not owned by a workflow")
	case l[api.LabelOwnerName] == "" || l[api.LabelOwnerNamespace] == "" || l[api.LabelOwnerUID] == "":
		return hide("the movement's labels do not say which workflow owns it")
	case l[api.LabelOwnerName] != l[api.LabelWorkflowName] || l[api.LabelOwnerNamespace] != l[api.LabelWorkflowNamespace] ||
		l[api.LabelOwnerUID] != l[api.LabelWorkflowUID]:
		return hide("the movement's labels name two workflows")
	case !p.owns(c, dm.Spec.UserID):
		return hide("the movement belongs to another user")
	// Early clients name no workflow.
	case asked.Name != "" && asked.Name != l[api.LabelOwnerName], asked.Namespace != "" && asked.Namespace != l[api.LabelOwnerNamespace]:
		return hide("the movement is not of the workflow that the request names")
	}
	return allow()
}

// Selector returns the labels that the movements of a workflow carry. They
// include the initiator when only the movements of one node are wanted.
func Selector(w WorkflowRef, node string) map[string]string {
	out := map[string]string{api.LabelOwnerKind: dws.KindWorkflow, api.LabelOwnerName: w.Name, api.LabelOwnerNamespace: w.Namespace}
	if node != "" {
		out[api.LabelInitiator] = node
	}
	return out
}

// List returns the names of the movements that the caller may see: oldest
// first, those of one second by name.
func (p Policy) List(c Caller, asked WorkflowRef, movements []*nnf.DataMovement) []string {
	var seen []*nnf.DataMovement
	for _, dm := range movements {
		if p.Listed(c, dm, asked).Allowed() {
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
