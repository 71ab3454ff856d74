package datamovement

import (
	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// Access decides for one caller on one node about movements that exist.
type Access struct {
	Policy Policy
	Caller Caller
	Node   string // this compute's name, the initiator of everything that it may touch
}

// Movement decides whether the caller may see, cancel and delete dm. It must
// have been started from this node, belong to a workflow, copy as the caller,
// and be of the workflow that the request names, if it names one. Everything
// else is Hidden, from root too: the workflow controller's own movements
// (copy_in, copy_out) and those of other computes are not ours to touch.
func (a Access) Movement(dm *nnf.DataMovement, asked WorkflowRef) Verdict {
	if v := a.ours(dm, a.Node); !v.Allowed() {
		return v
	}
	return a.asked(dm, asked)
}

// Listed decides whether List shows dm to a caller who may see the workflow.
// With Policy.ListWorkflow the node does not matter, but it must still be a
// compute's movement.
func (a Access) Listed(dm *nnf.DataMovement, asked WorkflowRef) Verdict {
	node := a.Node
	if a.Policy.ListWorkflow {
		node = dm.Labels[api.LabelInitiator]
	}
	if v := a.ours(dm, node); !v.Allowed() {
		return v
	}
	return a.asked(dm, asked)
}

func (a Access) ours(dm *nnf.DataMovement, node string) Verdict {
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
	case !a.Policy.owns(a.Caller, dm.Spec.UserID):
		return hide("the movement belongs to another user")
	}
	return allow()
}

// asked compares with the workflow of the request. Early clients name none.
func (a Access) asked(dm *nnf.DataMovement, w WorkflowRef) Verdict {
	if w.Name != "" && w.Name != dm.Labels[api.LabelOwnerName] || w.Namespace != "" && w.Namespace != dm.Labels[api.LabelOwnerNamespace] {
		return hide("the movement is not of the workflow that the request names")
	}
	return allow()
}
