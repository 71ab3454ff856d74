package identities

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// administrator runs nnf-deploy with the SystemConfiguration of a system.
type administrator struct {
	*system
	file       string // with the SystemConfiguration
	kubeconfig string
}

func newAdministrator(t *testing.T) *administrator {
	s := &administrator{system: newSystem(t)}
	s.kubeconfig = s.Cluster.Dir + "/admin.kubeconfig"
	s.configure(s.distant)
	return s
}

// configure writes the SystemConfiguration with these external nodes, and without the other rabbit
// if there are none.
func (s *administrator) configure(external ...string) {
	s.t.Helper()
	rabbits := []any{fixture.StorageNode(s.Rabbit, s.Node, s.near), fixture.StorageNode(s.other, s.far)}
	var nodes []any
	for _, e := range external {
		nodes = append(nodes, map[string]any{"name": e})
	}
	if len(external) == 0 {
		rabbits = rabbits[:1]
	}
	o := fixture.SystemConfiguration("default", rabbits)
	with(o, nodes, "spec", "externalComputeNodes")
	text, err := json.Marshal(o)
	s.Must(err)
	s.file = s.Write("system.json", text)
}

// answer is the result of a run of nnf-deploy.
type answer struct {
	code           int
	stdout, stderr string
}

func (a answer) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", a.code, a.stdout, a.stderr)
}

// identities runs nnf-deploy identities.
func (s *administrator) identities(command string, args ...string) answer {
	s.t.Helper()
	var stdout, stderr strings.Builder
	p := cli.Process{Environ: []string{"KUBECONFIG=" + s.kubeconfig}, Stdout: &stdout, Stderr: &stderr}
	code := deploy.Program.Run(s.Context(2*patience), p, append([]string{"identities", command, "--system-config", s.file}, args...))
	return answer{code, stdout.String(), stderr.String()}
}

// expect checks the exit code of a run, and that it has printed these texts.
func (s *administrator) expect(a answer, code int, texts ...string) answer {
	s.t.Helper()
	if a.code != code {
		s.t.Errorf("want exit code %d: %v", code, a)
	}
	for _, text := range texts {
		if !strings.Contains(strings.Join(strings.Fields(a.stdout+a.stderr), " "), text) {
			s.t.Errorf("no %q: %v", text, a)
		}
	}
	return a
}

// document is the output of identities status with -o json.
type document struct {
	Well     bool
	Enforced *bool
	Shared   struct{ State string }
	Nodes    []struct {
		Node, State                 string
		Missing, Different, Foreign []string
	}
	Stale  []struct{ Kind, Namespace, Name string }
	Others []struct{ Namespace, Name string }
}

// states returns the states of the nodes, "NODE STATE".
func (s *administrator) states(args ...string) (d document, states string) {
	s.t.Helper()
	a := s.identities("status", append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(a.stdout), &d); err != nil {
		s.t.Fatalf("%v: %v", err, a)
	}
	if (a.code == 0) != d.Well || a.code > 1 {
		s.t.Errorf("well is %t: %v", d.Well, a)
	}
	for _, n := range d.Nodes {
		states += " " + strings.NewReplacer(s.Node+"-", "", s.Node, "node").Replace(n.Node) + "=" + n.State
	}
	return d, strings.TrimSpace(states)
}

// notEnforced waits until the API server has noticed that a policy is not there any more.
func (s *administrator) notEnforced() {
	s.t.Helper()
	wait.Within(s.t, patience, "that a policy is not enforced", func() bool { d, _ := s.states(); return !*d.Enforced })
}

func (s *administrator) exists(kind, namespace, name string) bool {
	s.t.Helper()
	_, err := s.Cluster.Get(s.Context(patience), kind, namespace, name)
	if err != nil && !lab.IsNotFound(err) {
		s.t.Fatal(err)
	}
	return err == nil
}

// block is the binding of all nodes of a small system.
const block = "compute-daemons-nnf-dm-1-0"

// nnf-deploy identities creates the objects, changes what differs, and deletes what it has created,
// and nothing else.
func TestDeploy(t *testing.T) {
	s := newAdministrator(t)
	s.expect(s.identities("remove"), 0) // also what the other tests have created
	s.notEnforced()
	if d, states := s.states(); states != "node=missing near=missing far=missing distant=missing" || d.Shared.State != "missing" || len(d.Stale) > 0 {
		t.Errorf("%+v", d)
	}
	s.expect(s.identities("status"), 1, "policies, roles and bindings: missing; the policies are not enforced", "COUNT ACCOUNTS DETAILS NODES 4 missing")

	// A dry run stores nothing. One node, then all.
	s.expect(s.identities("apply", "--dry-run"), 0, "create ValidatingAdmissionPolicy compute-daemons-clientmountd", "create ServiceAccount nnf-dm", "create 7 bindings", "4 nodes: 4 would change")
	if _, states := s.states(); states != "node=missing near=missing far=missing distant=missing" {
		t.Error(states)
	}
	s.expect(s.identities("apply", s.near), 0, "1 node: 1 changed", "created")
	if d, states := s.states(s.near); states != "near=complete" || !d.Well || !*d.Enforced {
		t.Errorf("%+v", d)
	}
	if _, states := s.states(); states != "node=missing near=complete far=missing distant=missing" {
		t.Error(states)
	}
	s.expect(s.identities("apply"), 0, "4 nodes: 3 changed, 1 unchanged")
	if d, states := s.states(); states != "node=complete near=complete far=complete distant=complete" || !d.Well {
		t.Errorf("%+v", d)
	}
	if a := s.expect(s.identities("apply"), 0, "4 nodes: 4 unchanged", "objects:"); strings.Contains(a.stderr, "created") || strings.Contains(a.stderr, " changed") {
		t.Error(a)
	}
	s.expect(s.identities("status"), 0, "policies, roles and bindings: complete; the policies are enforced", "4 complete")

	// Another program changes a binding, and deletes an account.
	binding := lab.Path("RoleBinding", s.far, "compute-daemons-nnf-dm")
	change := nested([]any{map[string]any{"kind": "ServiceAccount", "name": "nnf-dm", "namespace": s.near}}, "subjects")
	_, err := s.Cluster.PatchPath(s.Context(patience), binding+"?fieldManager=intruder", mergePatch, change)
	s.Must(err)
	s.Must(s.Cluster.Delete(s.Context(patience), "ServiceAccount", s.near, "nnf-dm"))
	if _, states := s.states(); states != "node=complete near=incomplete far=different distant=complete" {
		t.Error(states)
	}
	s.expect(s.identities("apply"), 1, "another program manages fields of a RoleBinding", "intruder", "--force", "4 nodes: 1 changed, 2 unchanged, 1 failed")
	s.expect(s.identities("apply", "--force"), 0, "4 nodes: 1 changed, 3 unchanged")

	// A binding of another role, which the API server does not permit to change.
	s.Must(s.Cluster.Delete(s.Context(patience), "RoleBinding", s.far, "compute-daemons-nnf-dm"))
	s.Apply(lab.Object{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
		"metadata": map[string]any{"name": "compute-daemons-nnf-dm", "namespace": s.far, "labels": map[string]any{"app.kubernetes.io/managed-by": "nnf-deploy"}},
		"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})
	s.expect(s.identities("apply", "--dry-run", s.far), 0, "1 node: 1 would change")
	if _, states := s.states(s.far); states != "far=different" {
		t.Error(states)
	}
	s.expect(s.identities("apply", s.far), 0, "1 node: 1 changed")
	if _, states := s.states(s.far); states != "far=complete" {
		t.Error(states)
	}

	// A weaker policy.
	policy := lab.Path("ValidatingAdmissionPolicy", "", "compute-daemons-nnf-dm")
	_, err = s.Cluster.PatchPath(s.Context(patience), policy, mergePatch, nested(map[string]any{"matchLabels": map[string]any{"x": "y"}}, "spec", "matchConstraints", "objectSelector"))
	s.Must(err)
	s.notEnforced()
	if d, _ := s.states(); d.Shared.State != "different" {
		t.Errorf("%+v", d.Shared)
	}
	s.expect(s.identities("apply"), 1, "error: apply ValidatingAdmissionPolicy")
	s.expect(s.identities("apply", "--force"), 0)
	if d, _ := s.states(); !d.Well {
		t.Errorf("%+v", d)
	}

	// An apply keeps what another program has added to a list, so the policy stays weaker.
	const mover = "compute-daemons-nnf-dm"
	o, err := s.Cluster.Get(s.Context(patience), "ValidatingAdmissionPolicy", "", mover)
	s.Must(err)
	conditions := append(o.At("spec", "matchConditions").([]any), map[string]any{"name": "never", "expression": "false"})
	_, err = s.Cluster.PatchPath(s.Context(patience), policy+"?fieldManager=intruder", mergePatch, nested(conditions, "spec", "matchConditions"))
	s.Must(err)
	s.notEnforced()
	for _, args := range [][]string{nil, {"--dry-run"}, {"--force"}} {
		s.expect(s.identities("apply", args...), 1, "ValidatingAdmissionPolicy "+mover+" differs even after it was applied", "delete the object")
	}
	s.Must(s.Cluster.Delete(s.Context(patience), "ValidatingAdmissionPolicy", "", mover))
	s.expect(s.identities("apply"), 0, "create ValidatingAdmissionPolicy "+mover)
	if d, _ := s.states(); !d.Well {
		t.Errorf("%+v", d)
	}

	// Accounts of another program with the same name are neither changed nor deleted.
	s.Must(s.Cluster.Delete(s.Context(patience), "ServiceAccount", s.near, "nnf-dm"))
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "nnf-dm", "namespace": s.near}})
	if d, states := s.states(s.near); states != "near=foreign" || len(d.Nodes[0].Foreign) != 1 {
		t.Errorf("%+v", d)
	}
	s.expect(s.identities("apply"), 1, "1 failed", "was not created by nnf-deploy")
	s.expect(s.identities("revoke", s.near), 1, "was not created by nnf-deploy")
	s.expect(s.identities("remove", s.near), 0, "ServiceAccount nnf-dm is kept: nnf-deploy has not created it")
	if !s.exists("ServiceAccount", s.near, "nnf-dm") || s.exists("ServiceAccount", s.near, "clientmountd") {
		t.Error("the account of another program was deleted, or that of nnf-deploy was not")
	}
	if !s.exists("RoleBinding", s.Rabbit, "compute-daemons-nnf-dm-"+s.Rabbit) || !s.exists("ClusterRoleBinding", "", block) {
		t.Error("a binding is deleted that other nodes need")
	}
	s.expect(s.identities("apply", "--force", s.near), 0)

	// The policies also apply to accounts of the same name elsewhere.
	elsewhere := func(list []struct{ Namespace, Name string }) (n int) {
		for _, o := range list {
			if o.Namespace == "default" {
				n++
			}
		}
		return n
	}
	if d, _ := s.states(); elsewhere(d.Others) != 0 {
		t.Errorf("%+v", d.Others)
	}
	for _, name := range []string{"nnf-dm", "nnf-clientmount"} {
		s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": name, "namespace": "default"}})
	}
	if d, _ := s.states(); elsewhere(d.Others) != 1 || !d.Well {
		t.Errorf("%+v", d)
	}
	if d, _ := s.states(s.near); len(d.Others) != 0 {
		t.Errorf("%+v", d.Others)
	}
	const note = "note: the policies also apply to accounts with the name of a daemon that nnf-deploy has not created, in namespaces of no compute node: default/nnf-dm"
	s.expect(s.identities("status"), 0, note)
	s.expect(s.identities("apply"), 0, note)
	s.Grant(s.Node+"-elsewhere", "default", "nnf-dm", []any{fixture.Rule(api.GroupNNF, "nnfdatamovements", "create")})
	collection, stranger := lab.Path("NnfDataMovement", "nnf-dm-system", ""), s.Client(s.tokenOf(product.Account{Name: "nnf-dm", Namespace: "default"}))
	for initiator, permitted := range map[string]bool{s.Node: false, "default": true} {
		wait.Within(t, patience, "the role and the policy for an account elsewhere", func() bool {
			_, err := request(create(collection, movement("nnf-dm-system", "nnf-dm-elsewhere", initiator, 1001, 1001)).dry(), t, stranger)
			_, message := status(err)
			return permitted && err == nil || !permitted && strings.Contains(message, "ValidatingAdmissionPolicy")
		})
	}
	for _, name := range []string{"nnf-dm", "nnf-clientmount"} {
		s.Must(s.Cluster.Delete(s.Context(patience), "ServiceAccount", "default", name))
	}

	// A node without a namespace does not stop the others.
	s.configure(s.distant, s.Node+"-nowhere")
	s.expect(s.identities("apply"), 1, "for several nodes: change 5 bindings", "5 nodes: 4 unchanged, 1 failed", "a namespace does not exist")
	s.expect(s.identities("apply", s.near), 0, "1 node: 1 unchanged")

	// Nodes that leave the system. The binding of all nodes still has them.
	s.configure()
	if d, states := s.states(); states != "node=complete near=complete" || d.Shared.State != "different" || d.Well || len(d.Stale) == 0 {
		t.Errorf("%+v", d)
	}
	s.expect(s.identities("status"), 1, "note: ", "objects belong to no node of the SystemConfiguration, among them accounts of "+s.Node+"-")
	s.expect(s.identities("remove", "--stale", "--dry-run"), 0, "delete ServiceAccount "+s.far+"/nnf-dm")
	if !s.exists("ServiceAccount", s.far, "nnf-dm") {
		t.Error("a dry run deletes accounts")
	}
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "other", "namespace": s.far, "labels": map[string]any{"app.kubernetes.io/managed-by": "nnf-deploy"}}})
	s.expect(s.identities("remove", "--stale"), 0, "deleted")
	if s.exists("ServiceAccount", s.far, "nnf-dm") || !s.exists("ServiceAccount", s.far, "other") || s.exists("RoleBinding", s.other, "compute-daemons-nnf-dm-"+s.other) {
		t.Error("stale objects are not deleted, or others are")
	}
	s.expect(s.identities("apply"), 0, "change 5 bindings", "2 nodes: 2 unchanged")
	if d, _ := s.states(); !d.Well {
		t.Errorf("%+v", d)
	}

	// The policies go last.
	s.expect(s.identities("remove", s.near), 0, "1 node: 1 changed")
	s.expect(s.identities("remove", s.Node), 0)
	if s.exists("ServiceAccount", s.Node, "nnf-dm") || !s.exists("ValidatingAdmissionPolicy", "", "compute-daemons-nnf-dm") {
		t.Error("accounts are kept, or the policies are deleted")
	}
	s.expect(s.identities("apply", s.near), 0)
	s.expect(s.identities("remove"), 0, "delete ValidatingAdmissionPolicy compute-daemons-nnf-dm")
	if d, states := s.states(); states != "node=missing near=missing" || d.Shared.State != "missing" || len(d.Stale) > 0 {
		t.Errorf("%+v", d)
	}
}

// After a theft, the tokens of a node become invalid, even if the thief uses one all the time to
// request further ones. Another node notices nothing.
func TestRevoke(t *testing.T) {
	s := newAdministrator(t)
	s.expect(s.identities("apply", "--force"), 0)
	old := map[string][]byte{}
	for _, d := range product.Names() {
		old[d] = s.token(d, s.Node)
	}
	path := lab.Path("ClientMount", s.Node, "")
	stolen := s.Client(old["clientmountd"])
	wait.Within(t, patience, "the role", func() bool { _, err := request(get(path), t, stolen); return err == nil })
	peer := s.client("clientmountd", s.near)
	near := lab.Path("ClientMount", s.near, "")
	wait.Within(t, patience, "the role", func() bool { _, err := request(get(near), t, peer); return err == nil })

	done := make(chan struct{})
	var thief, other sync.WaitGroup
	var loot []string
	cached := 0 // requests that the server has accepted although the account did not exist
	d, _ := product.Of("clientmountd")
	thief.Go(func() {
		for {
			o, err := request(tokenOf(d.NodeAccount(s.Node)), t, stolen)
			if code, _ := status(err); code == http.StatusOK {
				loot = append(loot, o.String("status", "token"))
			} else if code == http.StatusNotFound {
				cached++
			}
			if wait.Pass(t, 50*time.Millisecond, "the next attempt of the thief"); isClosed(done) {
				return
			}
		}
	})
	calls := 0
	other.Go(func() {
		for {
			calls++
			if _, err := request(get(near), t, peer); err != nil {
				t.Errorf("the other node: %v", err)
			}
			if wait.Pass(t, 20*time.Millisecond, "the next request of the other node"); isClosed(done) {
				return
			}
		}
	})
	started := time.Now()
	a := s.identities("revoke", s.Node)
	took := time.Since(started)
	s.expect(a, 0, "all tokens of the node are invalid", "nnf-deploy install --no-programs --identity per-node "+s.Node)
	// The thief has another chance: the accounts exist again.
	wait.Pass(t, 2*time.Second, "the thief")
	close(done)
	thief.Wait()
	other.Wait()
	if len(loot) == 0 || calls < 10 {
		t.Fatalf("the thief got %d tokens, the other node sent %d requests", len(loot), calls)
	}
	for _, token := range append(loot[max(0, len(loot)-20):], string(old["clientmountd"]), string(old["nnf-dm"])) {
		if _, err := request(get(path), t, s.Client([]byte(token))); !refusedToken(err) {
			t.Errorf("an old token: %v", err)
		}
	}
	fresh := s.client("clientmountd", s.Node)
	wait.Within(t, patience, "a new token", func() bool { _, err := request(get(path), t, fresh); return err == nil })
	t.Logf("revoked after %v; the thief got %d tokens, which are all invalid, and sent %d requests with a cached one; the other node sent %d requests without an error", took, len(loot), cached, calls)

	s.expect(s.identities("revoke", "--dry-run", s.near), 0, "make all tokens of the node invalid")
	if _, err := request(get(near), t, peer); err != nil {
		t.Errorf("after a dry run: %v", err)
	}
	s.expect(s.identities("remove", s.far), 0)
	s.expect(s.identities("revoke", s.far), 1, "an account does not exist")
	s.expect(s.identities("revoke"), 2, "identities revoke needs NODE...")
	if s.exists("ServiceAccount", s.far, "nnf-dm") {
		t.Error("an account was created")
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func refusedToken(err error) bool {
	code, _ := status(err)
	return code == http.StatusUnauthorized
}

// An administrator who may not impersonate accounts gets an error before anything is bound.
func TestDeployRights(t *testing.T) {
	s := newAdministrator(t)
	s.expect(s.identities("remove"), 0)
	all := []any{map[string]any{"apiGroups": []any{"rbac.authorization.k8s.io"}, "resources": []any{"*"}, "verbs": []any{"*"}},
		map[string]any{"apiGroups": []any{"admissionregistration.k8s.io"}, "resources": []any{"*"}, "verbs": []any{"*"}},
		map[string]any{"apiGroups": []any{""}, "resources": []any{"serviceaccounts"}, "verbs": []any{"get", "list"}}}
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": s.Node, "namespace": "default"}})
	s.Grant(s.Node+"-deploy", "default", s.Node, all)
	o, err := request(tokenOf(product.Account{Name: s.Node, Namespace: "default"}), t, s.Cluster.Client)
	s.Must(err)
	s.kubeconfig = s.Write("weak.kubeconfig", fixture.Kubeconfig(s.Cluster.URL, s.Cluster.CA(), []byte(o.String("status", "token"))))
	wait.Within(t, patience, "the role", func() bool { return !strings.Contains(s.identities("status").stderr, "may not list") })
	a := s.expect(s.identities("apply"), 1, "may not impersonate system:serviceaccount:"+s.Node+":clientmountd")
	if lines := strings.Split(strings.TrimSpace(a.stderr), "\n"); len(lines) > 2 {
		t.Error(a)
	}
	s.expect(s.identities("status"), 1, "not known whether the policies are enforced")
	s.kubeconfig = s.Cluster.Dir + "/admin.kubeconfig"
	if _, states := s.states(); states != "node=missing near=missing far=missing distant=missing" {
		t.Error(states)
	}
	if slices.ContainsFunc([]string{"clientmountd", "nnf-dm"}, func(d string) bool { return s.exists("ClusterRole", "", "compute-daemons-"+d+"-node") }) {
		t.Error("there are roles")
	}
	s.expect(s.identities("remove"), 0)
	if _, err := os.Stat(s.file); err != nil {
		t.Error(err)
	}
}

// The commands in the guide work, in their order, and the guide has what they print.
func TestIdentitiesGuide(t *testing.T) {
	s := newAdministrator(t)
	s.expect(s.identities("remove"), 0)
	run := 0
	for _, block := range manual.Commands(t, fixture.Root(t), "docs/identities.md", "internal/e2e/identities TestIdentitiesGuide") {
		for line := range strings.Lines(block) {
			args := strings.Fields(strings.ReplaceAll(line, "compute-[01-02]", s.Node+","+s.near))
			want := 0
			if slices.Equal(args, []string{"nnf-deploy", "identities", "status"}) {
				want = 1 // two of four nodes have accounts
			}
			a := s.expect(s.identities(args[2], args[3:]...), want)
			if want == 1 {
				s.expect(a, 1, "policies, roles and bindings: incomplete", "COUNT ACCOUNTS DETAILS NODES 2 complete")
			}
			run++
		}
	}
	if run != 7 {
		t.Errorf("the guide has %d commands", run)
	}
	if _, states := s.states(); states != "node=complete near=complete far=complete distant=complete" {
		t.Error(states)
	}
	s.expect(s.identities("status"), 0, "policies, roles and bindings: complete; the policies are enforced COUNT ACCOUNTS DETAILS NODES 4 complete")
	s.expect(s.identities("remove"), 0)
}
