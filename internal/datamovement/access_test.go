package datamovement

import (
	"reflect"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

var (
	alice  = Caller{UID: 1001, GID: 100, PID: 42}
	bob    = Caller{UID: 1002, GID: 100, Groups: []uint32{100, 1001}}
	super  = Caller{}
	lenent = Policy{RootMayAll: true, AllowRootCopies: true}
	usual  = Policy{RootMayAll: true}
)

func TestCreateFor(t *testing.T) {
	ids := func(uid, gid int64) func(*dws.Workflow) {
		return func(w *dws.Workflow) { w.Spec.UserID, w.Spec.GroupID = uid, gid }
	}
	own := ids(1001, 100)
	for _, c := range []struct {
		name   string
		policy Policy
		caller Caller
		change func(*dws.Workflow)
		want   Outcome
		as     Identity
		reason string
	}{
		{"own", usual, alice, own, Allowed, Identity{1001, 100}, ""},
		{"own, strictest policy", Policy{}, alice, own, Allowed, Identity{1001, 100}, ""},
		{"own, by another primary group", usual, Caller{UID: 1001, GID: 7, Groups: []uint32{7, 100}}, own, Allowed, Identity{1001, 100}, ""},
		{"the workflow's group is not mine", usual, Caller{UID: 1001, GID: 7, Groups: []uint32{8}}, own, Denied, Identity{}, "not a member"},
		{"no groups known", usual, Caller{UID: 1001, GID: 7}, own, Denied, Identity{}, "not a member"},
		{"somebody else's", usual, bob, own, Hidden, Identity{}, "another user"},
		{"same number as a group only", usual, Caller{UID: 100, GID: 1001}, own, Hidden, Identity{}, "another user"},
		{"root copies as the user", usual, super, own, Allowed, Identity{1001, 100}, ""},
		{"root where root is nobody", Policy{}, super, own, Hidden, Identity{}, "another user"},
		{"root's own workflow", usual, super, ids(0, 0), Denied, Identity{}, "as root"},
		{"root's own workflow, allowed", lenent, super, ids(0, 0), Allowed, Identity{}, ""},
		{"root's own workflow, root is nobody", Policy{AllowRootCopies: true}, super, ids(0, 0), Allowed, Identity{}, ""},
		{"user 0 is not alice", lenent, alice, ids(0, 0), Hidden, Identity{}, "another user"},
		{"group 0", usual, Caller{UID: 1001, GID: 0}, ids(1001, 0), Denied, Identity{}, "as root"},
		{"group 0 of somebody who is not in it", lenent, alice, ids(1001, 0), Denied, Identity{}, "not a member"},
		{"an id that nobody has", usual, super, ids(4294967295, 100), Denied, Identity{}, "not an identity"},
		{"a negative id", usual, super, ids(-1, 100), Denied, Identity{}, "not an identity"},
		{"a wrapped id", usual, Caller{UID: 4294967295, GID: 1}, ids(-1, 1), Hidden, Identity{}, "another user"},
		{"a wrapped group", usual, alice, ids(1001, -1), Denied, Identity{}, "not an identity"},
		{"2^32 is not root", lenent, super, ids(1<<32, 0), Denied, Identity{}, "not an identity"},
		{"above 2^31", usual, Caller{UID: 3e9, GID: 3e9}, ids(3e9, 3e9), Allowed, Identity{3e9, 3e9}, ""},
		{"an unknown identity", usual, Caller{UID: 65534, GID: 65534}, ids(65534, 65534), Hidden, Identity{}, "another user"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wf := workflow()
			c.change(wf)
			as, v := c.policy.CreateFor(c.caller, wf)
			if v.Outcome != c.want || as != c.as || !strings.Contains(v.Reason, c.reason) || (v.Reason == "") != (c.want == Allowed) {
				t.Errorf("%v %q as %v", v.Outcome, v.Reason, as)
			}
		})
	}
}

func TestCheckWorkflow(t *testing.T) {
	for state, ok := range map[string]bool{
		"PreRun/Completed": true, "PreRun/DriverWait": false, "PostRun/Completed": false, "/": false, "PreRun/Error": false, "prerun/completed": false,
	} {
		wf := workflow()
		wf.Status.State, wf.Status.Status, _ = strings.Cut(state, "/")
		err := CheckWorkflow(wf)
		if ok != (err == nil) {
			t.Errorf("%s: %v", state, err)
		}
		if err != nil {
			wantFault(t, err, ErrFailed, ReasonWorkflowState, "Workflow must be in 'PreRun' state and 'Completed' status")
		}
	}
}

func label(key, value string) func(*nnf.DataMovement) {
	return func(dm *nnf.DataMovement) {
		if value == "" {
			delete(dm.Labels, key)
			return
		}
		dm.Labels[key] = value
	}
}

func TestMovement(t *testing.T) {
	own := func(*nnf.DataMovement) {}
	for _, c := range []struct {
		name   string
		policy Policy
		caller Caller
		change func(*nnf.DataMovement)
		asked  WorkflowRef
		want   Outcome
		reason string
	}{
		{"own", usual, alice, own, job7, Allowed, ""},
		{"own, no workflow named", usual, alice, own, WorkflowRef{}, Allowed, ""},
		{"own, half a workflow named", usual, alice, own, WorkflowRef{Name: "job7"}, Allowed, ""},
		{"root", usual, super, own, job7, Allowed, ""},
		{"root where root is nobody", Policy{}, super, own, job7, Hidden, "another user"},
		{"another user of the same group", usual, bob, own, job7, Hidden, "another user"},
		{"other workflow named", usual, alice, own, WorkflowRef{"job8", "default"}, Hidden, "that the request names"},
		{"same name elsewhere", usual, alice, own, WorkflowRef{"job7", "other"}, Hidden, "that the request names"},
		{"other workflow named by root", usual, super, own, WorkflowRef{"job8", "default"}, Hidden, "that the request names"},
		{"copied as somebody else", usual, alice, func(dm *nnf.DataMovement) { dm.Spec.UserID = 1002 }, job7, Hidden, "another user"},
		{"copied as root", usual, alice, func(dm *nnf.DataMovement) { dm.Spec.UserID = 0 }, job7, Hidden, "another user"},
		{"2^32 more", usual, alice, func(dm *nnf.DataMovement) { dm.Spec.UserID += 1 << 32 }, job7, Hidden, "another user"},
		{"another compute's", usual, alice, label(api.LabelInitiator, "compute-02"), job7, Hidden, "another node"},
		{"another compute's, root", usual, super, label(api.LabelInitiator, "compute-02"), job7, Hidden, "another node"},
		{"a name that starts like ours", usual, alice, label(api.LabelInitiator, "compute-011"), job7, Hidden, "another node"},
		{"copy_in", usual, super, label(api.LabelInitiator, "copy_in"), job7, Hidden, "from a compute"},
		{"copy_out", usual, alice, label(api.LabelInitiator, "copy_out"), job7, Hidden, "from a compute"},
		{"no initiator", usual, alice, label(api.LabelInitiator, ""), job7, Hidden, "from a compute"},
		{"owned by something else", usual, alice, label(api.LabelOwnerKind, "NnfAccess"), job7, Hidden, "not owned"},
		{"no owner kind", usual, alice, label(api.LabelOwnerKind, ""), job7, Hidden, "not owned"},
		{"no owner name", usual, alice, label(api.LabelOwnerName, ""), job7, Hidden, "do not say"},
		{"no owner namespace", usual, alice, label(api.LabelOwnerNamespace, ""), job7, Hidden, "do not say"},
		{"no owner uid", usual, alice, label(api.LabelOwnerUID, ""), job7, Hidden, "do not say"},
		{"two names", usual, alice, label(api.LabelWorkflowName, "job8"), job7, Hidden, "two workflows"},
		{"two namespaces", usual, alice, label(api.LabelWorkflowNamespace, ""), job7, Hidden, "two workflows"},
		{"two uids", usual, alice, label(api.LabelWorkflowUID, "other"), job7, Hidden, "two workflows"},
		{"no labels", usual, super, func(dm *nnf.DataMovement) { dm.Labels = nil }, WorkflowRef{}, Hidden, "from a compute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Access{c.policy, c.caller, node}
			dm := movement(c.change)
			v := a.Movement(dm, c.asked)
			if v.Outcome != c.want || !strings.Contains(v.Reason, c.reason) || (v.Reason == "") != (c.want == Allowed) {
				t.Errorf("%v %q", v.Outcome, v.Reason)
			}
			if l := a.Listed(dm, c.asked); l != v {
				t.Errorf("Listed says %v, Movement says %v", l, v)
			}
		})
	}
}

// A node without a name owns nothing, not even what has no initiator.
func TestMovementNoNode(t *testing.T) {
	a := Access{usual, super, ""}
	if v := a.Movement(movement(label(api.LabelInitiator, "")), job7); v.Allowed() {
		t.Error("allowed")
	}
}

func TestListedWorkflow(t *testing.T) {
	p := usual
	p.ListWorkflow = true
	a := Access{p, alice, node}
	for initiator, want := range map[string]bool{"compute-02": true, node: true, "copy_in": false, "copy_out": false, "": false} {
		dm := movement(label(api.LabelInitiator, initiator))
		if v := a.Listed(dm, job7); v.Allowed() != want {
			t.Errorf("%q: %v", initiator, v)
		}
		if initiator != node && a.Movement(dm, job7).Allowed() {
			t.Errorf("%q may be touched", initiator)
		}
	}
}

// What is hidden looks in every way like what is missing.
func TestHiddenIsMissing(t *testing.T) {
	missing := MovementNotFound("nnf-dm-abcde")
	hidden := hide("the movement belongs to another user").Err(MovementNotFound("nnf-dm-abcde"))
	if !reflect.DeepEqual(hidden, error(missing)) {
		t.Errorf("%#v\n%#v", hidden, missing)
	}
	var zero Verdict
	wantFault(t, zero.Err(WorkflowNotFound(job7)), ErrNotFound, ReasonWorkflowNotFound, `could not find workflow "default/job7"`)
	wantFault(t, refuse("why").Err(missing), ErrDenied, ReasonDenied, "why")
	if err := allow().Err(missing); err != nil {
		t.Error(err)
	}
	for o, want := range map[Outcome]string{Allowed: "allowed", Denied: "denied", Hidden: "hidden"} {
		if o.String() != want {
			t.Error(o)
		}
	}
}
