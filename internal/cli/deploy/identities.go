package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/identities"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/nodeset"
	"github.com/compute-daemons/compute-daemons/internal/deploy/provision"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

type identitiesSettings struct {
	nodes                nodesSettings
	dryRun, force, stale bool
}

var identitiesCommands = []*command{
	{
		Name: "identities apply", Args: "[NODE...]", Short: "create the accounts with which a node can act only for itself",
		Long: `The command creates the accounts clientmountd and nnf-dm in the namespace of each
node, their roles and bindings, and two admission policies, or changes what differs.
Without NODE, it does so for all compute nodes of the system. NODE may be a host list
such as compute-[01-20,30]. The daemons use the accounts only when their tokens are
installed. The command needs Kubernetes 1.30 or later, and the rights of
cluster-admin.

The policies are created first, and no account is bound to a role before the API
server enforces them. If the command is interrupted, run it again: it changes only
what is missing or differs. The bindings outside the namespace of a node are for many
nodes, also for those without accounts.`,
		Examples: []cli.Example{
			{Comment: "Show what would change for two nodes, then change it:", Lines: "nnf-deploy identities apply --dry-run compute-[01-02]\nnnf-deploy identities apply compute-[01-02]"},
		},
		Most: -1, Run: runIdentitiesApply, Flags: func(f *pflag.FlagSet, v *call) {
			v.identities.flags(f, true)
			f.BoolVar(&v.identities.force, "force", false, "take over objects that nnf-deploy has not created, and fields that other programs have set")
		},
	},
	{
		Name: "identities status", Args: "[NODE...]", Short: "show which nodes have their own accounts, and whether the policies are enforced",
		Long: `Without NODE, the command also shows objects of nodes and rabbits that are no longer
in the SystemConfiguration. The exit code is 0 if all nodes have complete accounts, the
API server enforces the policies, and there are no such objects.`,
		Most: -1, Run: runIdentitiesStatus, Flags: func(f *pflag.FlagSet, v *call) { v.identities.flags(f, false) },
	},
	{
		Name: "identities remove", Args: "[NODE...]", Short: "delete the accounts of nodes, and with them all their tokens",
		Long: `Install the shared credentials on the nodes first: the daemons cannot authenticate
without the accounts. With NODE, the command keeps the bindings that are for several
nodes. Without NODE, it deletes all that identities apply has created; the policies
last, and only if everything else is deleted. It deletes only objects that nnf-deploy
has created, which it recognizes by their label.`,
		Examples: []cli.Example{
			{Comment: "Delete what belongs to nodes that have left the system:", Lines: "nnf-deploy identities remove --stale --dry-run\nnnf-deploy identities remove --stale"},
		},
		Most: -1, Run: runIdentitiesRemove, Flags: func(f *pflag.FlagSet, v *call) {
			v.identities.flags(f, true)
			f.BoolVar(&v.identities.stale, "stale", false, "delete only objects of nodes and rabbits that are not in the SystemConfiguration")
		},
	},
	{
		Name: "identities revoke", Args: "NODE...", Short: "make all tokens of nodes invalid, such as after a theft",
		Long: `The command deletes the accounts of the nodes, waits until API servers no longer
accept their tokens, and creates them again. This takes ` + strconv.Itoa(int(provision.Uncached.Seconds())) + ` seconds. Other nodes are
not affected. The daemons on the nodes cannot authenticate until you install new
tokens.`,
		Examples: []cli.Example{
			{Comment: "Revoke the tokens of a node, then give it new ones:", Lines: "nnf-deploy identities revoke compute-07\nnnf-deploy install --no-programs --identity per-node compute-07"},
		},
		Least: 1, Most: -1, Run: runIdentitiesRevoke, Flags: func(f *pflag.FlagSet, v *call) { v.identities.flags(f, true) },
	},
}

func (c *identitiesSettings) flags(f *pflag.FlagSet, changes bool) {
	c.nodes.systemFlags(f)
	if changes {
		f.BoolVar(&c.dryRun, "dry-run", false, "show what would change, and change nothing")
	}
	f.IntVar(&c.nodes.parallel, "parallel", 16, "send at most `N` requests to the API server at the same time")
}

// accounts is the work of an identities command.
type accounts struct {
	*job
	c      *identitiesSettings
	server *provision.Server
	found  provision.Found
	groups map[string][]*accountGroup // by node
	known  []provision.Ref            // all objects of the system; nil if only some were read

	mu       sync.Mutex
	counts   map[provision.Change]int // of all objects
	bindings map[provision.Change]int // of groups
}

// accountGroup is the part of the work that nodes have in common.
type accountGroup struct {
	identities.Group
	started atomic.Bool
	done    chan struct{} // closed when it is finished
	err     error
}

// prepareAccounts selects the nodes and reads what is on the API server: all objects, or those that
// refs returns for a selection of nodes.
func (v *call) prepareAccounts(ctx context.Context, refs func(a *accounts) []provision.Ref) (*accounts, error) {
	c := &v.identities
	if err := c.nodes.checkSystem(); err != nil {
		return nil, err
	}
	a := &accounts{job: &job{v: v, n: &c.nodes}, c: c, groups: map[string][]*accountGroup{}, counts: map[provision.Change]int{}, bindings: map[provision.Change]int{}}
	system, err := a.system(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := inventory.Nodes(system)
	if err != nil {
		return nil, err
	}
	if a.nodes, err = inventory.Select(nodes, v.Args); err != nil {
		return nil, usage.Errorf("%v", err)
	}
	groups, err := identities.Groups(nodes)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		group := &accountGroup{Group: g, done: make(chan struct{})}
		for _, n := range g.Nodes {
			a.groups[n] = append(a.groups[n], group)
		}
	}
	admin, err := a.cluster()
	if err != nil {
		return nil, err
	}
	a.server = provision.New(admin, c.nodes.parallel)
	a.server.Force, a.server.DryRun = c.force, c.dryRun
	if err := a.server.Check(ctx); err != nil {
		return nil, err
	}
	if len(v.Args) > 0 {
		a.found, err = a.server.Read(ctx, refs(a))
		return a, err
	}
	objects, err := identities.All(system)
	if err != nil {
		return nil, err
	}
	a.known = provision.RefsOf(objects...)
	a.found, err = a.server.ReadAll(ctx, a.known)
	return a, err
}

// selected returns the names of all objects that the selected nodes need.
func (a *accounts) selected() []provision.Ref {
	refs := provision.RefsOf(identities.Shared()...)
	seen := map[*accountGroup]bool{}
	for _, n := range a.nodes {
		refs = append(refs, provision.RefsOf(identities.ForNode(n.Name)...)...)
		for _, g := range a.groups[n.Name] {
			if !seen[g] {
				refs = append(refs, provision.RefsOf(identities.ForGroup(g.Group)...)...)
			}
			seen[g] = true
		}
	}
	return refs
}

// accountsOf returns the accounts of a node.
func accountsOf(node string) []identities.Object {
	return slices.DeleteFunc(identities.ForNode(node), func(o identities.Object) bool { return provision.RefOf(o).Kind != "ServiceAccount" })
}

// note counts a change of an object, and returns its text without the namespace.
func (a *accounts) note(c provision.Change, r provision.Ref) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[c]++
	return fmt.Sprintf("%s %s %s", c, r.Kind, r.Name)
}

// before runs f, which does everything before the first node. A signal stops it.
func (v *call) before(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := v.Interruptible(ctx, "")
	defer cancel(nil)
	return cli.Interrupted(ctx, f(ctx))
}

func runIdentitiesApply(ctx context.Context, v *call) error {
	c := &v.identities
	var a *accounts
	var shared []string
	err := v.before(ctx, func(ctx context.Context) (err error) {
		if a, err = v.prepareAccounts(ctx, (*accounts).selected); err == nil {
			shared, err = a.applyShared(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	results, stopped := a.onNodes(ctx, fleet.Options{Parallel: c.nodes.parallel}, c.dryRun, a.applyNode)
	for _, change := range []provision.Change{provision.Create, provision.Update} {
		if n := a.bindings[change]; n > 0 {
			shared = append(shared, fmt.Sprintf("%s %d bindings", change, n))
		}
	}
	if err := a.print(shared, results); err != nil {
		return err
	}
	v.noteOthers(a.others())
	if stopped != nil {
		v.Say("to continue, run the command again: it changes only what is missing or differs")
	}
	return stopped
}

// applyShared applies the policies and, when the API server enforces them, the roles. It returns
// what it has changed.
func (a *accounts) applyShared(ctx context.Context) (changes []string, err error) {
	var policies, roles []identities.Object
	for _, o := range identities.Shared() {
		if provision.RefOf(o).Kind == "ClusterRole" {
			roles = append(roles, o)
		} else {
			policies = append(policies, o)
		}
	}
	apply := func(objects []identities.Object) error {
		done, err := a.server.ApplyAll(ctx, a.found, objects)
		for i, change := range done {
			if text := a.note(change, provision.RefOf(objects[i])); change != provision.None {
				changes = append(changes, text)
			}
		}
		return withHint(err)
	}
	if err := apply(policies); err != nil {
		return nil, err
	}
	if !a.c.dryRun {
		if err := a.server.AwaitEnforced(ctx, a.nodes[0].Name, len(changes) > 0); err != nil {
			return nil, err
		}
	}
	return changes, apply(roles)
}

// withHint returns an error with the hint of a *provision.Problem.
func withHint(err error) error {
	if p := (*provision.Problem)(nil); errors.As(err, &p) && p.Hint != "" {
		return hint.Add(err, "%s", p.Hint)
	}
	return err
}

// applyNode applies the objects of a node, and those of its group if no other node has done so.
func (a *accounts) applyNode(ctx, _ context.Context, node string, _ func(string)) fleet.Result {
	r := fleet.Result{State: fleet.Unchanged}
	for _, o := range identities.ForNode(node) {
		change, err := a.server.Apply(ctx, a.found, o)
		if err != nil {
			return accountFailure(r, err)
		}
		if text := a.note(change, provision.RefOf(o)); change != provision.None {
			r.Changes = append(r.Changes, text)
		}
	}
	for _, g := range a.groups[node] {
		if g.started.CompareAndSwap(false, true) {
			a.applyGroup(ctx, g)
		}
		if <-g.done; g.err != nil {
			return accountFailure(r, g.err)
		}
	}
	return a.changed(r)
}

// changed sets the state of a result with changes.
func (a *accounts) changed(r fleet.Result) fleet.Result {
	if len(r.Changes) > 0 {
		r.State = fleet.OK
		if a.c.dryRun {
			r.State = fleet.Differs
		}
	}
	return r
}

func (a *accounts) applyGroup(ctx context.Context, g *accountGroup) {
	defer close(g.done)
	objects := identities.ForGroup(g.Group)
	var changes []provision.Change
	if changes, g.err = a.server.ApplyAll(ctx, a.found, objects); g.err != nil {
		return
	}
	for i, change := range changes {
		a.note(change, provision.RefOf(objects[i]))
		a.mu.Lock()
		a.bindings[change]++
		a.mu.Unlock()
	}
}

// accountFailure is the result r of a node with an error.
func accountFailure(r fleet.Result, err error) fleet.Result {
	if s := (*cli.Stopped)(nil); errors.As(err, &s) || errors.Is(err, context.Canceled) {
		r.State, r.Cause = fleet.Failed, "interrupted: run the command again to continue"
		return r
	}
	r.State, r.Cause = fleet.Failed, err.Error()
	if p := (*provision.Problem)(nil); errors.As(err, &p) {
		r.Class, r.Hint = p.Class, p.Hint
		if p.Hint != "" {
			r.Class += ": " + p.Hint
		}
	}
	return r
}

// accountsDocument is the output of identities apply, remove and revoke with -o json.
type accountsDocument struct {
	Objects objectCounts `json:"objects"`
	Shared  []string     `json:"shared"`
	resultsDocument
}

type objectCounts struct {
	Created   int `json:"created"`
	Changed   int `json:"changed"`
	Deleted   int `json:"deleted"`
	Unchanged int `json:"unchanged"`
}

func (c objectCounts) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		text string
	}{{c.Created, "created"}, {c.Changed, "changed"}, {c.Deleted, "deleted"}, {c.Unchanged, "unchanged"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	return "objects: " + strings.Join(parts, ", ")
}

// print prints the changes of shared objects and the results of nodes, and sets the exit code.
func (a *accounts) print(shared []string, results []fleet.Result) error {
	v := a.v
	counts := objectCounts{a.counts[provision.Create], a.counts[provision.Update], a.counts[provision.Remove], a.counts[provision.None]}
	if shared == nil {
		shared = []string{}
	}
	if v.output == formatJSON {
		d := accountsDocument{counts, shared, documentOf(results)}
		if err := text.JSON(v.Stdout, d); err != nil {
			return err
		}
	} else {
		var b strings.Builder
		if len(shared) > 0 {
			b.WriteString("for several nodes:\n")
			for _, s := range shared[:min(len(shared), maxRows)] {
				b.WriteString("  " + text.Line(s) + "\n")
			}
			if more := len(shared) - maxRows; more > 0 {
				fmt.Fprintf(&b, "  %d more: -o json shows all\n", more)
			}
		}
		if _, err := io.WriteString(v.Stdout, b.String()); err != nil {
			return err
		}
		show := resultsTable
		if a.c.dryRun {
			show = differences
		}
		if len(results) > 0 {
			if err := show(v.Stdout, results); err != nil {
				return err
			}
		}
	}
	if len(results) > 0 {
		v.Say("%s", fleet.Count(results))
	}
	if !a.c.dryRun && counts != (objectCounts{}) {
		v.Say("%s", counts)
	}
	v.notes(results)
	v.failures(results)
	if slices.ContainsFunc(results, func(r fleet.Result) bool { return r.State == fleet.Skipped || r.State == fleet.Interrupted }) {
		v.Code = cli.ExitFailed
	}
	return nil
}

func runIdentitiesRemove(ctx context.Context, v *call) error {
	c := &v.identities
	if c.stale && len(v.Args) > 0 {
		return usage.Errorf("--stale and NODE are mutually exclusive")
	}
	var a *accounts
	err := v.before(ctx, func(ctx context.Context) (err error) {
		a, err = v.prepareAccounts(ctx, func(a *accounts) (refs []provision.Ref) {
			for _, n := range a.nodes {
				refs = append(refs, provision.RefsOf(identities.ForNode(n.Name)...)...)
			}
			return refs
		})
		return err
	})
	if err != nil {
		return err
	}
	if missing := a.unbound(); c.stale && missing != "" {
		return hint.Add(fmt.Errorf("nothing was deleted: %s is missing or incomplete, so that nodes of the SystemConfiguration may depend on objects that are stale", missing),
			"run nnf-deploy identities apply first")
	}
	var results []fleet.Result
	if !c.stale {
		var stopped error
		results, stopped = a.onNodes(ctx, fleet.Options{Parallel: c.nodes.parallel}, c.dryRun, a.removeNode)
		if stopped != nil {
			return errors.Join(a.print(nil, results), stopped)
		}
	}
	var changes []string
	failed := slices.ContainsFunc(results, func(r fleet.Result) bool { return r.State == fleet.Failed })
	if !failed && a.known != nil {
		err = v.before(ctx, func(ctx context.Context) error {
			var err error
			changes, err = a.removeRest(ctx)
			return err
		})
	}
	if perr := a.print(changes, results); perr != nil {
		return perr
	}
	if failed && a.known != nil {
		v.Say("note: the policies, the roles and the other bindings are kept, because not all accounts were deleted")
	}
	return withHint(err)
}

// removeNode deletes the accounts of a node, then their bindings in its namespace.
func (a *accounts) removeNode(ctx, _ context.Context, node string, _ func(string)) fleet.Result {
	r := fleet.Result{State: fleet.Unchanged}
	refs := provision.RefsOf(identities.ForNode(node)...)
	slices.SortStableFunc(refs, func(a, b provision.Ref) int { return strings.Compare(b.Kind, a.Kind) })
	for _, ref := range refs {
		if a.found.Foreign(ref) {
			r.Notes = append(r.Notes, fmt.Sprintf("%s %s is kept: nnf-deploy has not created it", ref.Kind, ref.Name))
			continue
		}
		change, err := a.server.Delete(ctx, a.found, ref)
		if err != nil {
			return accountFailure(r, err)
		}
		if change != provision.None {
			r.Changes = append(r.Changes, a.note(change, ref))
		}
	}
	return a.changed(r)
}

// unbound returns a binding that an existing account needs and does not have, or "". If nodes have joined
// or left since the last apply, blocks may have other names, and the only bindings of all nodes are stale.
func (a *accounts) unbound() string {
	seen := map[*accountGroup]bool{}
	for _, n := range a.nodes {
		for _, g := range a.groups[n.Name] {
			if seen[g] {
				continue
			}
			seen[g] = true
			for _, o := range identities.ForGroup(g.Group) {
				for node := range a.found.Lacking(o) {
					if slices.ContainsFunc(provision.RefsOf(accountsOf(node)...), a.found.Has) {
						return provision.RefOf(o).String()
					}
				}
			}
		}
	}
	return ""
}

// removeRest deletes all other objects: those that are stale or, without --stale, all. The policies
// are the last. It returns what it has deleted.
func (a *accounts) removeRest(ctx context.Context) (changes []string, err error) {
	var refs []provision.Ref
	shared := provision.RefsOf(identities.Shared()...)
	if a.c.stale {
		refs = a.found.Stale(a.known)
	} else {
		done := slices.Clone(shared)
		for _, n := range a.nodes {
			done = append(done, provision.RefsOf(identities.ForNode(n.Name)...)...)
		}
		refs = a.found.Stale(done)
		slices.Reverse(shared)
	}
	account := func(r provision.Ref) bool { return r.Kind == "ServiceAccount" }
	// The objects of a step are deleted at the same time.
	steps := [][]provision.Ref{
		slices.DeleteFunc(slices.Clone(refs), func(r provision.Ref) bool { return !account(r) }),
		slices.DeleteFunc(refs, account),
	}
	if !a.c.stale {
		for _, r := range shared {
			steps = append(steps, []provision.Ref{r})
		}
	}
	for _, refs := range steps {
		done, err := a.server.DeleteAll(ctx, a.found, refs)
		for i, change := range done {
			if change != provision.None {
				a.note(change, refs[i])
				changes = append(changes, fmt.Sprintf("%s %s", change, refs[i]))
			}
		}
		if err != nil {
			return changes, err
		}
	}
	return changes, nil
}

func runIdentitiesRevoke(ctx context.Context, v *call) error {
	c := &v.identities
	var a *accounts
	err := v.before(ctx, func(ctx context.Context) (err error) {
		a, err = v.prepareAccounts(ctx, func(a *accounts) (refs []provision.Ref) {
			for _, n := range a.nodes {
				refs = append(refs, provision.RefsOf(accountsOf(n.Name)...)...)
			}
			return refs
		})
		return err
	})
	if err != nil {
		return err
	}
	var revoked []string
	// All nodes at the same time: most of the time is the delay, during which no request is sent.
	results, stopped := a.onNodes(ctx, fleet.Options{Parallel: len(a.nodes)}, c.dryRun, func(ctx, _ context.Context, node string, step func(string)) fleet.Result {
		r := fleet.Result{State: fleet.OK, Changes: []string{"all tokens of the node are invalid"}}
		deleted := false
		err := a.server.Replace(ctx, a.found, accountsOf(node), func() { deleted = true; step("wait") })
		switch {
		case err != nil && deleted:
			return fleet.Result{State: fleet.Failed, Cause: "the accounts are deleted, and so all tokens are invalid, but the accounts were not created again: " + err.Error(),
				Hint: "run nnf-deploy identities apply for the node, not earlier than " + provision.Uncached.String() + " from now"}
		case err != nil:
			return accountFailure(fleet.Result{}, err)
		case c.dryRun:
			return fleet.Result{State: fleet.Differs, Changes: []string{"make all tokens of the node invalid"}}
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		revoked = append(revoked, node)
		return r
	})
	if err := a.print(nil, results); err != nil {
		return err
	}
	if len(revoked) > 0 {
		v.Say("to give the nodes new tokens, run: nnf-deploy install --no-programs --identity per-node %s", nodeset.Fold(revoked, len(revoked)))
	}
	return stopped
}
