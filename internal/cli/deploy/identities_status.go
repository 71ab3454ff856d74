package deploy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/identities"
	"github.com/compute-daemons/compute-daemons/internal/deploy/provision"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The states of the accounts of a node, in the order of urgency.
const (
	accountsForeign    = "foreign"    // an object was created by another program
	accountsDifferent  = "different"  // an object is not as it should be
	accountsIncomplete = "incomplete" // an object is missing
	accountsMissing    = "missing"    // neither account exists
	accountsComplete   = "complete"
)

// accountState is the state of the accounts of a node.
type accountState struct {
	Node      string   `json:"node,omitempty"`
	State     string   `json:"state"`
	Missing   []string `json:"missing,omitempty"`
	Different []string `json:"different,omitempty"`
	Foreign   []string `json:"foreign,omitempty"`
}

// add adds the state of an object.
func (s *accountState) add(r provision.Ref, state provision.State) {
	switch name := r.String(); state {
	case provision.Missing:
		s.Missing = append(s.Missing, name)
	case provision.Different:
		s.Different = append(s.Different, name)
	case provision.Foreign:
		s.Foreign = append(s.Foreign, name)
	}
	switch {
	case len(s.Foreign) > 0:
		s.State = accountsForeign
	case len(s.Different) > 0:
		s.State = accountsDifferent
	case len(s.Missing) > 0:
		s.State = accountsIncomplete
	default:
		s.State = accountsComplete
	}
}

// bindingState is the state of a binding of several nodes.
type bindingState struct {
	provision.Ref
	state   provision.State
	lacking map[string]bool // nodes without the binding, if it is different
}

// of returns the state for one node: a binding may be different for other nodes only.
func (b *bindingState) of(node string) provision.State {
	if b.state == provision.Different && !b.lacking[node] {
		return provision.Same
	}
	return b.state
}

// compare compares everything with what was found.
func (a *accounts) compare() (shared accountState, nodes []accountState) {
	objects := identities.Shared()
	count := len(objects)
	for _, o := range objects {
		shared.add(provision.RefOf(o), a.found.State(o))
	}
	bindings := map[*accountGroup][]bindingState{}
	for _, n := range a.nodes {
		one := accountState{Node: n.Name}
		exists := false
		for _, o := range identities.ForNode(n.Name) {
			r := provision.RefOf(o)
			one.add(r, a.found.State(o))
			exists = exists || r.Kind == "ServiceAccount" && a.found.Has(r)
		}
		for _, g := range a.groups[n.Name] {
			if bindings[g] == nil {
				for _, o := range identities.ForGroup(g.Group) {
					b := bindingState{Ref: provision.RefOf(o), state: a.found.State(o)}
					if b.state == provision.Different {
						b.lacking = a.found.Lacking(o)
					}
					bindings[g] = append(bindings[g], b)
					shared.add(b.Ref, b.state)
					count++
				}
			}
			for i := range bindings[g] {
				one.add(bindings[g][i].Ref, bindings[g][i].of(n.Name))
			}
		}
		if one.State == accountsIncomplete && !exists {
			one.State = accountsMissing
		}
		nodes = append(nodes, one)
	}
	if len(shared.Missing) == count {
		shared.State = accountsMissing
	}
	return shared, nodes
}

// details describes a state without the names of the node and its rabbit.
func (s *accountState) details() string {
	var parts []string
	for _, p := range []struct {
		text string
		list []string
	}{{"not created by nnf-deploy", s.Foreign}, {"different", s.Different}, {"missing", s.Missing}} {
		number := map[string]int{}
		for _, name := range p.list {
			kind, _, _ := strings.Cut(name, " ")
			number[kind]++
		}
		var kinds []string
		for _, kind := range []string{"ServiceAccount", "RoleBinding", "ClusterRoleBinding", "ClusterRole", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} {
			if n := number[kind]; n > 0 {
				kinds = append(kinds, fmt.Sprintf("%d %s", n, kind))
			}
		}
		if len(kinds) > 0 && s.State != accountsMissing {
			parts = append(parts, p.text+": "+strings.Join(kinds, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// accountsStatus is the output of identities status with -o json.
type accountsStatus struct {
	Well     bool           `json:"well"`
	Enforced *bool          `json:"enforced"` // null: not known
	Error    string         `json:"error,omitempty"`
	Shared   accountState   `json:"shared"`
	Counts   map[string]int `json:"counts"`
	Nodes    []accountState `json:"nodes"`
	Stale    []staleObject  `json:"stale"`
	Others   []otherAccount `json:"others"`
}

// otherAccount is an account with the name of a daemon that nnf-deploy has not created, in a
// namespace of no compute node.
type otherAccount struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// others returns these accounts, if all objects were read.
func (a *accounts) others() []otherAccount {
	list := []otherAccount{}
	if a.known != nil {
		for _, r := range a.found.Others(a.known) {
			list = append(list, otherAccount{r.Namespace, r.Name})
		}
	}
	return list
}

// noteOthers prints a note about these accounts: the policies apply to them as well.
func (v *call) noteOthers(list []otherAccount) {
	if len(list) == 0 {
		return
	}
	var names []string
	for _, o := range list[:min(len(list), maxOthers)] {
		names = append(names, o.Namespace+"/"+o.Name)
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	v.Say("note: the policies also apply to accounts with the name of a daemon that nnf-deploy has not created, in namespaces of no compute node: %s", text.Line(strings.Join(names, ", ")))
}

// maxOthers is the number of accounts in a note.
const maxOthers = 10

// staleObject is an object of a node or rabbit that is not in the SystemConfiguration.
type staleObject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func runIdentitiesStatus(ctx context.Context, v *call) error {
	var a *accounts
	s := accountsStatus{Counts: map[string]int{}, Stale: []staleObject{}}
	err := v.before(ctx, func(ctx context.Context) (err error) {
		if a, err = v.prepareAccounts(ctx, (*accounts).selected); err != nil {
			return err
		}
		if enforced, err := a.server.Enforced(ctx, a.nodes[0].Name); err != nil {
			s.Error = err.Error()
		} else {
			s.Enforced = &enforced
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	s.Shared, s.Nodes = a.compare()
	s.Well = s.Shared.State == accountsComplete && s.Enforced != nil && *s.Enforced
	for _, n := range s.Nodes {
		s.Counts[n.State]++
		s.Well = s.Well && n.State == accountsComplete
	}
	if a.known != nil {
		for _, r := range a.found.Stale(a.known) {
			s.Stale = append(s.Stale, staleObject(r))
		}
		s.Well = s.Well && len(s.Stale) == 0
	}
	s.Others = a.others()
	if !s.Well {
		v.Code = cli.ExitFailed
	}
	if v.output == formatJSON {
		return text.JSON(v.Stdout, s)
	}
	return s.write(v)
}

// write prints the status as text.
func (s *accountsStatus) write(v *call) error {
	line := "policies, roles and bindings: " + s.Shared.State
	if d := s.Shared.details(); d != "" {
		line += " (" + d + ")"
	}
	switch {
	case s.Enforced == nil:
		line += "; not known whether the policies are enforced"
		v.Say("error: %s", text.Line(s.Error))
	case *s.Enforced:
		line += "; the policies are enforced"
	default:
		line += "; the policies are not enforced"
	}
	if _, err := fmt.Fprintln(v.Stdout, line); err != nil {
		return err
	}
	var rows [][]string
	for _, same := range grouped(s.Nodes, func(n accountState) string { return n.State + "\x00" + n.details() }) {
		var names []string
		for _, n := range same {
			names = append(names, n.Node)
		}
		rows = append(rows, []string{strconv.Itoa(len(same)), same[0].State, same[0].details(), hostList(names)})
	}
	if err := writeRows(v.Stdout, []string{"ACCOUNTS", "DETAILS"}, rows); err != nil {
		return err
	}
	if len(s.Stale) > 0 {
		var names []string
		for _, r := range s.Stale {
			if r.Kind == "ServiceAccount" && !slices.Contains(names, r.Namespace) {
				names = append(names, r.Namespace)
			}
		}
		line := fmt.Sprintf("%d objects belong to no node of the SystemConfiguration", len(s.Stale))
		if len(names) > 0 {
			line += ", among them accounts of " + hostList(names)
		}
		v.Say("note: %s: check with nnf-deploy identities remove --stale --dry-run", text.Line(line))
	}
	v.noteOthers(s.Others)
	return nil
}
