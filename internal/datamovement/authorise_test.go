package datamovement

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

var (
	alice   = Caller{UID: 1001, GID: 100, PID: 42}
	bob     = Caller{UID: 1002, GID: 100, Groups: []uint32{100, 1001}}
	super   = Caller{}
	lenient = Policy{Node: node, RootMayAll: true, AllowRootCopies: true}
	usual   = Policy{Node: node, RootMayAll: true}
	strict  = Policy{Node: node}
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
		{"own, strictest policy", strict, alice, own, Allowed, Identity{1001, 100}, ""},
		{"own, by another primary group", usual, Caller{UID: 1001, GID: 7, Groups: []uint32{7, 100}}, own, Allowed, Identity{1001, 100}, ""},
		{"not a member of the workflow's group", usual, Caller{UID: 1001, GID: 7, Groups: []uint32{8}}, own, Denied, Identity{}, "not a member"},
		{"groups not reported", usual, Caller{UID: 1001, GID: 7}, own, Denied, Identity{}, "not a member"},
		{"another user's", usual, bob, own, Hidden, Identity{}, "another user"},
		{"uid equals the workflow's gid only", usual, Caller{UID: 100, GID: 1001}, own, Hidden, Identity{}, "another user"},
		{"root for a user", usual, super, own, Allowed, Identity{1001, 100}, ""},
		{"root without root_may_all", strict, super, own, Hidden, Identity{}, "another user"},
		{"root's own workflow", usual, super, ids(0, 0), Denied, Identity{}, "as root"},
		{"root's own workflow, allowed", lenient, super, ids(0, 0), Allowed, Identity{}, ""},
		{"root's own workflow without root_may_all", Policy{AllowRootCopies: true}, super, ids(0, 0), Allowed, Identity{}, ""},
		{"user calls for root's workflow", lenient, alice, ids(0, 0), Hidden, Identity{}, "another user"},
		{"group 0", usual, Caller{UID: 1001, GID: 0}, ids(1001, 0), Denied, Identity{}, "as root"},
		{"group 0, not a member", lenient, alice, ids(1001, 0), Denied, Identity{}, "not a member"},
		{"the reserved id 2^32-1", usual, super, ids(4294967295, 100), Denied, Identity{}, "out of range"},
		{"a negative id", usual, super, ids(-1, 100), Denied, Identity{}, "out of range"},
		{"-1 is not 2^32-1", usual, Caller{UID: 4294967295, GID: 1}, ids(-1, 1), Hidden, Identity{}, "another user"},
		{"a negative group", usual, alice, ids(1001, -1), Denied, Identity{}, "out of range"},
		{"2^32 is not root", lenient, super, ids(1<<32, 0), Denied, Identity{}, "out of range"},
		{"above 2^31", usual, Caller{UID: 3e9, GID: 3e9}, ids(3e9, 3e9), Allowed, Identity{3e9, 3e9}, ""},
		{"an unmapped id", usual, Caller{UID: 65534, GID: 65534}, ids(65534, 65534), Hidden, Identity{}, "another user"},
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
			wantFault(t, err, ErrFailed, v2.ErrorReason_WORKFLOW_STATE, "Workflow must be in 'PreRun' state and 'Completed' status")
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
		name      string
		policy    Policy
		caller    Caller
		change    func(*nnf.DataMovement)
		requested WorkflowRef
		want      Outcome
		reason    string
	}{
		{"own", usual, alice, own, job7, Allowed, ""},
		{"own, request without workflow", usual, alice, own, WorkflowRef{}, Allowed, ""},
		{"own, request without namespace", usual, alice, own, WorkflowRef{Name: "job7"}, Allowed, ""},
		{"root", usual, super, own, job7, Allowed, ""},
		{"root without root_may_all", strict, super, own, job7, Hidden, "another user"},
		{"another user of the same group", usual, bob, own, job7, Hidden, "another user"},
		{"request with another workflow", usual, alice, own, WorkflowRef{"job8", "default"}, Hidden, "in the request"},
		{"request with another namespace", usual, alice, own, WorkflowRef{"job7", "other"}, Hidden, "in the request"},
		{"request of root with another workflow", usual, super, own, WorkflowRef{"job8", "default"}, Hidden, "in the request"},
		{"copies as another user", usual, alice, func(dm *nnf.DataMovement) { dm.Spec.UserID = 1002 }, job7, Hidden, "another user"},
		{"copies as root", usual, alice, func(dm *nnf.DataMovement) { dm.Spec.UserID = 0 }, job7, Hidden, "another user"},
		{"uid + 2^32", usual, alice, func(dm *nnf.DataMovement) { dm.Spec.UserID += 1 << 32 }, job7, Hidden, "another user"},
		{"another compute's", usual, alice, label(api.LabelInitiator, "compute-02"), job7, Hidden, "another node"},
		{"another compute's, root", usual, super, label(api.LabelInitiator, "compute-02"), job7, Hidden, "another node"},
		{"a node name with ours as prefix", usual, alice, label(api.LabelInitiator, "compute-011"), job7, Hidden, "another node"},
		{"copy_in", usual, super, label(api.LabelInitiator, "copy_in"), job7, Hidden, "from a compute"},
		{"copy_out", usual, alice, label(api.LabelInitiator, "copy_out"), job7, Hidden, "from a compute"},
		{"no initiator", usual, alice, label(api.LabelInitiator, ""), job7, Hidden, "from a compute"},
		{"owned by something else", usual, alice, label(api.LabelOwnerKind, "NnfAccess"), job7, Hidden, "not owned"},
		{"no owner kind", usual, alice, label(api.LabelOwnerKind, ""), job7, Hidden, "not owned"},
		{"no owner name", usual, alice, label(api.LabelOwnerName, ""), job7, Hidden, "do not identify"},
		{"no owner namespace", usual, alice, label(api.LabelOwnerNamespace, ""), job7, Hidden, "do not identify"},
		{"no owner uid", usual, alice, label(api.LabelOwnerUID, ""), job7, Hidden, "do not identify"},
		{"two names", usual, alice, label(api.LabelWorkflowName, "job8"), job7, Hidden, "two different workflows"},
		{"two namespaces", usual, alice, label(api.LabelWorkflowNamespace, ""), job7, Hidden, "two different workflows"},
		{"two uids", usual, alice, label(api.LabelWorkflowUID, "other"), job7, Hidden, "two different workflows"},
		{"no labels", usual, super, func(dm *nnf.DataMovement) { dm.Labels = nil }, WorkflowRef{}, Hidden, "from a compute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dm := movement(c.change)
			v := c.policy.Movement(c.caller, dm, c.requested)
			if v.Outcome != c.want || !strings.Contains(v.Reason, c.reason) || (v.Reason == "") != (c.want == Allowed) {
				t.Errorf("%v %q", v.Outcome, v.Reason)
			}
			if l := c.policy.Listed(c.caller, dm, c.requested); l != v {
				t.Errorf("Listed returns %v, Movement returns %v", l, v)
			}
		})
	}
}

// A node without a name may not access any movement, not even one without initiator.
func TestMovementNoNode(t *testing.T) {
	p := usual
	p.Node = ""
	if v := p.Movement(super, movement(label(api.LabelInitiator, "")), job7); v.Allowed() {
		t.Error("allowed")
	}
}

func TestListedWorkflow(t *testing.T) {
	p := usual
	p.ListWorkflow = true
	for initiator, want := range map[string]bool{"compute-02": true, node: true, "copy_in": false, "copy_out": false, "": false} {
		dm := movement(label(api.LabelInitiator, initiator))
		if v := p.Listed(alice, dm, job7); v.Allowed() != want {
			t.Errorf("%q: %v", initiator, v)
		}
		if initiator != node && p.Movement(alice, dm, job7).Allowed() {
			t.Errorf("movement of initiator %q is accessible", initiator)
		}
	}
}

// Errors for hidden and missing objects are identical.
func TestHiddenIsMissing(t *testing.T) {
	missing := MovementNotFound("nnf-dm-abcde")
	hidden := hide("the movement belongs to another user").Err(MovementNotFound("nnf-dm-abcde"))
	if !reflect.DeepEqual(hidden, error(missing)) {
		t.Errorf("%#v\n%#v", hidden, missing)
	}
	var zero Verdict
	wantFault(t, zero.Err(WorkflowNotFound(job7)), ErrNotFound, v2.ErrorReason_WORKFLOW_NOT_FOUND, `could not find workflow "default/job7"`)
	wantFault(t, refuse("why").Err(missing), ErrDenied, v2.ErrorReason_ACCESS_DENIED, "why")
	if err := allow().Err(missing); err != nil {
		t.Error(err)
	}
	for o, want := range map[Outcome]string{Allowed: "allowed", Denied: "denied", Hidden: "hidden"} {
		if o.String() != want {
			t.Error(o)
		}
	}
}

func TestList(t *testing.T) {
	named := func(name string, second int64, change ...func(*nnf.DataMovement)) *nnf.DataMovement {
		dm := movement(change...)
		dm.Name, dm.CreationTimestamp = name, metav1.NewTime(time.Unix(second, 0))
		return dm
	}
	all := []*nnf.DataMovement{
		named("c", 2), named("b", 1), named("a", 2),
		named("foreign", 1, func(d *nnf.DataMovement) { d.Spec.UserID = 1002 }),
		named("elsewhere", 1, label(api.LabelInitiator, "compute-02")),
		named("copy-in", 1, label(api.LabelInitiator, "copy_in")),
		named("other", 1, label(api.LabelOwnerName, "job8"), label(api.LabelWorkflowName, "job8")),
	}
	for _, c := range []struct {
		name   string
		policy Policy
		caller Caller
		want   []string
	}{
		{"owner", usual, alice, []string{"b", "a", "c"}},
		{"root", usual, super, []string{"b", "foreign", "a", "c"}},
		{"another", usual, bob, []string{"foreign"}},
		{"whole workflow", Policy{Node: node, ListWorkflow: true}, alice, []string{"b", "elsewhere", "a", "c"}},
	} {
		if got := c.policy.List(c.caller, job7, all); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	if got := usual.List(alice, job7, nil); got == nil || len(got) != 0 {
		t.Errorf("%#v", got)
	}
}

func TestSelector(t *testing.T) {
	dm := movement()
	for _, n := range []string{"", node} {
		s := Selector(job7, n)
		for key, value := range s {
			if dm.Labels[key] != value {
				t.Errorf("%s=%s selects nothing", key, value)
			}
		}
		if _, ok := s[api.LabelInitiator]; ok != (n != "") {
			t.Errorf("%v", s)
		}
	}
	if d := Describe(dm); d != "rabbit-01/nnf-dm-node-abcde of user 1001" {
		t.Error(d)
	}
}
