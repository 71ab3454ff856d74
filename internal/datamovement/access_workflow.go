package datamovement

import (
	"math"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Identity is as whom the rabbit copies. It comes from the workflow, never from
// the request.
type Identity struct{ UID, GID uint32 }

// SeeWorkflow decides whether the caller may know of wf: list its movements,
// ask for them, and learn why it cannot copy.
func (p Policy) SeeWorkflow(c Caller, wf *dws.Workflow) Verdict {
	if !p.owns(c, wf.Spec.UserID) {
		return hide("the workflow belongs to another user")
	}
	return allow()
}

// CreateFor decides whether the caller may create a movement for wf, and says
// as whom it is copied: as the workflow's user and group, for root as well.
// A workflow of somebody else is Hidden; one that is the caller's but cannot be
// copied for is Denied.
func (p Policy) CreateFor(c Caller, wf *dws.Workflow) (Identity, Verdict) {
	if v := p.SeeWorkflow(c, wf); !v.Allowed() {
		return Identity{}, v
	}
	uid, gid := wf.Spec.UserID, wf.Spec.GroupID
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

// CheckWorkflow refuses a workflow that is not ready for copies from computes
// (contract nnf-dm.md 4.2, check 2).
func CheckWorkflow(wf *dws.Workflow) error {
	if wf.Status.State != dws.StatePreRun || wf.Status.Status != dws.StatusCompleted || wf.DeletionTimestamp != nil {
		return failed(ReasonWorkflowState, "Workflow must be in 'PreRun' state and 'Completed' status")
	}
	return nil
}
