package datamovement

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

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
		{"whole workflow", Policy{ListWorkflow: true}, alice, []string{"b", "elsewhere", "a", "c"}},
	} {
		if got := List(Access{c.policy, c.caller, node}, job7, all); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	if got := List(Access{usual, alice, node}, job7, nil); got == nil || len(got) != 0 {
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

func TestDefaultProfile(t *testing.T) {
	p := func(name string, def bool) nnf.DataMovementProfile {
		return nnf.DataMovementProfile{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: nnf.DataMovementProfileData{Default: def}}
	}
	got, err := DefaultProfile([]nnf.DataMovementProfile{p("a", false), p("b", true)})
	if err != nil || got.Name != "b" {
		t.Error(got, err)
	}
	_, err = DefaultProfile([]nnf.DataMovementProfile{p("a", false)})
	wantFault(t, err, ErrFailed, ReasonProfileNotFound, "unable to find a default NnfDataMovementProfile to use")
	_, err = DefaultProfile([]nnf.DataMovementProfile{p("b", true), p("c", false), p("a", true)})
	wantFault(t, err, ErrFailed, ReasonProfileNotFound, "more than one default NnfDataMovementProfile found; unable to pick one: [a b]")
	wantFault(t, ProfileNotFound("fast"), ErrFailed, ReasonProfileNotFound, "unable to retrieve NnfDataMovementProfile: fast")
}
