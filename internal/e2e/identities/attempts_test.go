package identities

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// row is a row of the tables in docs/security.md: what the accounts of one node can or cannot do,
// with requests that show it.
type row struct {
	text string
	by   string // what refuses it: role, policy; empty: it is permitted
	with []attempt
}

// attempt is a request of one of the accounts. With a user, it impersonates this one.
type attempt struct {
	as   *lab.Client
	what call
	user string
}

// send sends the request with the account, or another client.
func (a attempt) send(t *testing.T, as *lab.Client, what call) error {
	t.Helper()
	if a.user != "" {
		as = as.As(a.user)
	}
	_, err := request(what, t, as)
	return err
}

const (
	byRole   = "role"
	byPolicy = "policy"
)

// foreignFinalizer and foreignLabel are those of another program.
const (
	foreignFinalizer = "example.com/cleanup"
	foreignLabel     = "example.com/label"
)

// The ClientMounts and data movements of the test.
const (
	mount       = "m"
	nearRabbit  = "nnf-dm-node-%s" // of a node
	everyRabbit = "nnf-dm-%s"
)

func (s *system) mountPath(node string) string { return lab.Path("ClientMount", node, mount) }

// movement returns a data movement of a user, with this initiator; none if that is empty.
func movement(namespace, name, initiator string, user, group int) lab.Object {
	o := fixture.DataMovement(namespace, name, initiator, "job", fixture.WorkflowUID, map[string]any{
		"source": map[string]any{"path": "/mnt/nnf/a"}, "destination": map[string]any{"path": fixture.Global + "/b"},
		"userId": user, "groupId": group, "userConfig": map[string]any{},
	})
	if initiator == "" {
		delete(o.At("metadata", "labels").(map[string]any), api.LabelInitiator)
	}
	return o
}

// with returns the object with another value at a path.
func with(o lab.Object, value any, path ...string) lab.Object {
	m := map[string]any(o)
	for _, p := range path[:len(path)-1] {
		m = m[p].(map[string]any)
	}
	if m[path[len(path)-1]] = value; value == nil {
		delete(m, path[len(path)-1])
	}
	return o
}

// nested returns an object with one value, at a path.
func nested(value any, path ...string) any {
	for _, p := range slices.Backward(path) {
		value = map[string]any{p: value}
	}
	return value
}

// prepare creates what the attempts are about, and returns the paths of these objects.
func (s *system) prepare() (paths []string) {
	s.t.Helper()
	keep := func(o lab.Object) {
		s.Apply(o)
		paths = append(paths, lab.Path(o.String("kind"), o.Namespace(), o.Name()))
	}
	for _, node := range []string{s.Node, s.near, s.far} {
		o := fixture.ClientMount(mount, node, fixture.ClientMountSpec{
			Profile: s.Profile, Labels: map[string]string{foreignLabel: "x"},
			Mounts: []fixture.MountSpec{{Path: s.Path(mount), Type: "xfs"}},
		})
		with(o, []any{foreignFinalizer, api.FinalizerClientMount}, "metadata", "finalizers")
		keep(with(o, map[string]any{"example.com/annotation": "x"}, "metadata", "annotations"))
	}
	for node, rabbit := range map[string]string{s.Node: s.Rabbit, s.near: s.Rabbit, s.far: s.other} {
		keep(movement(rabbit, fmt.Sprintf(nearRabbit, node), node, 1001, 1001))
		keep(movement("nnf-dm-system", fmt.Sprintf(everyRabbit, node), node, 1001, 1001))
	}
	own := movement(s.Rabbit, "nnf-dm-node-held", s.Node, 1001, 1001)
	keep(with(own, []any{api.FinalizerDataMovement}, "metadata", "finalizers"))
	keep(fixture.ClientMount(mount, s.Rabbit, fixture.ClientMountSpec{Profile: s.Profile, Mounts: []fixture.MountSpec{{Path: s.Path(mount), Type: "xfs"}}}))
	keep(movement(s.Rabbit, "nnf-dm-node-root", s.Node, 0, 0))
	keep(movement(s.Rabbit, "nnf-dm-node-rootgroup", s.Node, 1001, 0))
	keep(movement(s.Rabbit, "nnf-dm-node-copyin", "copy_in", 1001, 1001))
	keep(movement(s.Rabbit, "nnf-dm-node-unlabelled", "", 1001, 1001))
	keep(fixture.Workflow("job", 1001))
	return paths
}

// refused are the requests that the API server refuses, all with the accounts of s.Node.
func (s *system) refused() []row {
	m, v, far := s.client("clientmountd", s.Node), s.client("nnf-dm", s.Node), s.client("nnf-dm", s.distant)
	mounts := func(list ...call) (all []attempt) {
		for _, c := range list {
			all = append(all, attempt{as: m, what: c})
		}
		return all
	}
	moves := func(list ...call) (all []attempt) {
		for _, c := range list {
			all = append(all, attempt{as: v, what: c})
		}
		return all
	}
	impersonate := func(as *lab.Client, what call, users ...string) (all []attempt) {
		for _, user := range users {
			all = append(all, attempt{as, what, user})
		}
		return all
	}
	both := func(list ...call) []attempt { return append(mounts(list...), moves(list...)...) }
	own, near, other := s.mountPath(s.Node), s.mountPath(s.near), s.mountPath(s.far)
	in := func(ns string) string { return lab.Path("NnfDataMovement", ns, "") }
	at := func(ns, name string) string { return lab.Path("NnfDataMovement", ns, name) }
	mine, held := at(s.Rabbit, fmt.Sprintf(nearRabbit, s.Node)), at(s.Rabbit, "nnf-dm-node-held")
	minesys := at("nnf-dm-system", fmt.Sprintf(everyRabbit, s.Node))
	theirs := []string{at(s.Rabbit, fmt.Sprintf(nearRabbit, s.near)), at("nnf-dm-system", fmt.Sprintf(everyRabbit, s.near)), at("nnf-dm-system", fmt.Sprintf(everyRabbit, s.far))}
	older := func(path, version, old string) string { return strings.Replace(path, "/"+version+"/", "/"+old+"/", 1) }
	newMovement := func(ns, initiator string) lab.Object { return movement(ns, "nnf-dm-node-new", initiator, 1001, 1001) }
	newMount := func(node string) lab.Object {
		return fixture.ClientMount("new", node, fixture.ClientMountSpec{Profile: s.Profile, Mounts: []fixture.MountSpec{{Path: s.Path("new"), Type: "xfs"}}})
	}
	whole := func(path string) lab.Object {
		o, err := request(get(path), s.t, s.Cluster.Client)
		s.Must(err)
		return o
	}
	cancel := nested(true, "spec", "cancel")
	status := lab.Object{"status": map[string]any{"mounts": []any{}, "allReady": true}}
	owner := []any{map[string]any{"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": fixture.WorkflowUID, "blockOwnerDeletion": true}}
	account := func(daemon, node string) product.Account {
		d, _ := product.Of(daemon)
		return d.NodeAccount(node)
	}
	shared := func(daemon string) product.Account { d, _ := product.Of(daemon); return d.Account }

	var foreign []call
	for _, path := range theirs {
		foreign = append(foreign, merge(path, cancel), remove(path), merge(path, nested(s.Node, "metadata", "labels", api.LabelInitiator)))
	}
	var commands []call
	for path, values := range map[string][]any{
		"source/path":              {"/mnt/x;id", "/mnt/$(id)", "/mnt/`id`", "/mnt/a b", "/mnt/../etc/shadow", "mnt/x", "", "/mnt/x\nid", "/mnt/x'", "/mnt/x\u00a0", nil},
		"destination/path":         {"/lus/x|id", "/lus/x&", "/lus/x>y", "/lus/*", "/lus/~/..", nil},
		"userConfig/dcpOptions":    {"; id", "$(id)", "--uid 0", "-U0", "--", "-p -- /x", "--input /etc/shadow", "/etc/shadow", "-k 4MB x", "--xattrs dcp"},
		"userConfig/mpirunOptions": {"id", "-np 1 id", "-np 1 : id", "--prefix /x", "-x LD_PRELOAD=/x", "--mca plm_rsh_agent id", "--map-by rankfile:FILE=x", "-np 1\nid", "--host x"},
	} {
		for _, value := range values {
			o := newMovement(s.Rabbit, s.Node)
			commands = append(commands, create(in(s.Rabbit), with(o, value, append([]string{"spec"}, strings.Split(path, "/")...)...)))
		}
	}
	commands = append(commands, create(in("nnf-dm-system"), with(newMovement("nnf-dm-system", s.Node), "id", "spec", "userConfig", "mpirunOptions")))
	rows := []row{
		{"change the ClientMounts of another node, or their status", byRole, append(mounts(
			merge(near, nested("unmounted", "spec", "desiredState")), merge(near+"/status", status),
			edit(near, map[string]any{"op": "remove", "path": "/metadata/finalizers"}), edit(near, map[string]any{"op": "add", "path": "/metadata/finalizers/-", "value": api.FinalizerClientMount}),
			merge(other+"/status", status), merge(s.mountPath(s.Rabbit)+"/status", status),
			apply(near, lab.Object{"apiVersion": api.GroupDWS + "/" + api.VersionsDWS[0], "kind": "ClientMount", "metadata": map[string]any{"name": mount}, "spec": map[string]any{"desiredState": "unmounted"}}),
		), moves(merge(own, nested("unmounted", "spec", "desiredState")), merge(own+"/status", status), merge(near+"/status", status), merge(near, nested("x", "metadata", "labels", foreignLabel)))...)},
		{"create or delete ClientMounts, or replace a whole one", byRole, append(both(
			create(lab.Path("ClientMount", s.Node, ""), newMount(s.Node)), create(lab.Path("ClientMount", s.near, ""), newMount(s.near)), remove(own), remove(near),
			remove(lab.Path("ClientMount", s.Node, "")), remove(lab.Path("ClientMount", s.near, "")), replace(own, whole(own)), replace(own+"/status", whole(own)),
		), moves(create(lab.Path("ClientMount", s.Rabbit, ""), newMount(s.Rabbit)))...)},
		{"list or watch the ClientMounts of other nodes with the account of clientmountd", byRole, mounts(
			get(near), get(lab.Path("ClientMount", s.near, "")), get(lab.Path("ClientMount", "", "")), get(lab.Path("ClientMount", s.near, "")+"?watch=1"), get(lab.Path("ClientMount", s.Rabbit, "")),
		)},
		{"change the spec of its own ClientMounts", byPolicy, mounts(
			merge(own, nested("unmounted", "spec", "desiredState")), merge(own, nested(s.near, "spec", "node")), edit(own, map[string]any{"op": "replace", "path": "/spec/mounts/0/type", "value": "gfs2"}),
			edit(own, map[string]any{"op": "replace", "path": "/spec/mounts/0/mountPath", "value": "/etc"}), edit(own, map[string]any{"op": "replace", "path": "/spec/mounts/0/device/deviceReference/data", "value": 5}),
			merge(older(own, api.VersionsDWS[0], api.VersionsDWS[1]), nested("unmounted", "spec", "desiredState")),
			merge(own, lab.Object{"metadata": map[string]any{"finalizers": []any{foreignFinalizer}}, "spec": map[string]any{"desiredState": "unmounted"}}),
			apply(own, lab.Object{"apiVersion": api.GroupDWS + "/" + api.VersionsDWS[0], "kind": "ClientMount", "metadata": map[string]any{"name": mount}, "spec": map[string]any{"desiredState": "unmounted"}}),
		)},
		{"change labels, annotations or owners of its own ClientMounts", byPolicy, mounts(
			merge(own, nested("y", "metadata", "labels", foreignLabel)), merge(own, nested("y", "metadata", "labels", "new")), merge(own, nested(nil, "metadata", "labels", foreignLabel)),
			merge(own, nested("otherjob", "metadata", "labels", api.LabelWorkflowName)), merge(own, nested(nil, "metadata", "labels")),
			merge(own, nested("y", "metadata", "annotations", "example.com/annotation")), merge(own, nested("y", "metadata", "annotations", "new")), merge(own, nested(nil, "metadata", "annotations")),
			merge(own, nested(owner, "metadata", "ownerReferences")),
		)},
		{"change finalizers of other programs on its own ClientMounts", byPolicy, mounts(
			merge(own, nested(nil, "metadata", "finalizers")), merge(own, nested([]any{api.FinalizerClientMount}, "metadata", "finalizers")),
			edit(own, map[string]any{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/new"}), edit(own, map[string]any{"op": "remove", "path": "/metadata/finalizers/0"}),
			edit(own, map[string]any{"op": "replace", "path": "/metadata/finalizers/0", "value": "example.com/new"}),
		)},
		{"create data movements in the name of another node, of the workflow controller, or of none", byPolicy, append(moves(
			create(in(s.Rabbit), newMovement(s.Rabbit, s.near)), create(in(s.Rabbit), newMovement(s.Rabbit, s.far)), create(in(s.Rabbit), newMovement(s.Rabbit, s.Rabbit)),
			create(in(s.Rabbit), newMovement(s.Rabbit, "copy_in")), create(in(s.Rabbit), newMovement(s.Rabbit, "")), create(in(s.Rabbit), with(newMovement(s.Rabbit, s.Node), nil, "metadata", "labels")),
			create(in("nnf-dm-system"), newMovement("nnf-dm-system", s.near)), create(in("nnf-dm-system"), newMovement("nnf-dm-system", "copy_out")),
			apply(at(s.Rabbit, "nnf-dm-node-new"), newMovement(s.Rabbit, s.near)),
			create(older(in(s.Rabbit), api.VersionsNNF[0], api.VersionsNNF[1]), with(newMovement(s.Rabbit, s.near), api.GroupNNF+"/"+api.VersionsNNF[1], "apiVersion")),
		), attempt{as: far, what: create(in("nnf-dm-system"), newMovement("nnf-dm-system", s.Node))})},
		{"create data movements on another rabbit, or elsewhere", byRole, append(moves(
			create(in(s.other), newMovement(s.other, s.Node)), create(in(s.other), newMovement(s.other, s.far)), create(in("default"), newMovement("default", s.Node)),
			create(in(s.Node), newMovement(s.Node, s.Node)), create(in("nnf-system"), newMovement("nnf-system", s.Node)),
		), append(mounts(create(in(s.Rabbit), newMovement(s.Rabbit, s.Node)), create(in("nnf-dm-system"), newMovement("nnf-dm-system", s.Node))),
			attempt{as: far, what: create(in(s.Rabbit), newMovement(s.Rabbit, s.distant))})...)},
		{"create, cancel or delete data movements of user 0 or group 0", byPolicy, moves(
			create(in(s.Rabbit), movement(s.Rabbit, "nnf-dm-node-new", s.Node, 0, 1001)), create(in(s.Rabbit), movement(s.Rabbit, "nnf-dm-node-new", s.Node, 1001, 0)),
			create(in("nnf-dm-system"), movement("nnf-dm-system", "nnf-dm-new", s.Node, 0, 0)), create(in(s.Rabbit), movement(s.Rabbit, "nnf-dm-node-new", s.Node, -1, 1001)),
			create(in(s.Rabbit), with(newMovement(s.Rabbit, s.Node), nil, "spec", "userId")), create(in(s.Rabbit), with(newMovement(s.Rabbit, s.Node), nil, "spec", "groupId")),
			create(in(s.Rabbit), with(newMovement(s.Rabbit, s.Node), nil, "spec")),
			merge(mine, nested(0, "spec", "userId")), merge(mine, nested(nil, "spec", "groupId")),
			merge(at(s.Rabbit, "nnf-dm-node-root"), cancel), remove(at(s.Rabbit, "nnf-dm-node-root")), merge(at(s.Rabbit, "nnf-dm-node-root"), nested(1001, "spec", "userId")), remove(at(s.Rabbit, "nnf-dm-node-rootgroup")),
		)},
		{"create data movements with finalizers or owners", byPolicy, moves(
			create(in(s.Rabbit), with(newMovement(s.Rabbit, s.Node), []any{"example.com/new"}, "metadata", "finalizers")), create(in(s.Rabbit), with(newMovement(s.Rabbit, s.Node), owner, "metadata", "ownerReferences")),
		)},
		{"run commands on a rabbit as root, through a path or an option of a data movement", byPolicy, moves(commands...)},
		{"cancel, change, take over or delete data movements of another node or of the workflow controller", byPolicy, moves(append(foreign,
			merge(at(s.Rabbit, "nnf-dm-node-copyin"), cancel), remove(at(s.Rabbit, "nnf-dm-node-copyin")), remove(at(s.Rabbit, "nnf-dm-node-unlabelled")),
			merge(at(s.Rabbit, "nnf-dm-node-unlabelled"), nested(s.Node, "metadata", "labels", api.LabelInitiator)),
			merge(older(theirs[0], api.VersionsNNF[0], api.VersionsNNF[1]), cancel), edit(theirs[0], map[string]any{"op": "add", "path": "/spec/cancel", "value": true}),
		)...)},
		{"cancel, change or delete data movements on another rabbit", byRole, moves(
			merge(at(s.other, fmt.Sprintf(nearRabbit, s.far)), cancel), remove(at(s.other, fmt.Sprintf(nearRabbit, s.far))),
			remove(in(s.Rabbit)), remove(in("nnf-dm-system")), remove(in(s.other)), // all of a namespace
		)},
		{"change anything but `cancel` in its own data movements", byPolicy, moves(
			merge(mine, nested(1002, "spec", "userId")), merge(mine, nested(1002, "spec", "groupId")), merge(mine, nested("/etc/shadow", "spec", "source", "path")), merge(mine, nested("/x", "spec", "destination", "path")),
			merge(mine, nested("--x", "spec", "userConfig", "dcpOptions")), merge(mine, nested(map[string]any{"kind": "NnfDataMovementProfile", "name": "x"}, "spec", "profileReference")),
			merge(mine, nested(s.near, "metadata", "labels", api.LabelInitiator)), merge(mine, nested(nil, "metadata", "labels", api.LabelInitiator)), merge(minesys, nested(s.near, "metadata", "labels", api.LabelInitiator)),
			merge(mine, nested("other", "metadata", "labels", api.LabelWorkflowName)), merge(mine, nested("y", "metadata", "annotations", "new")), merge(mine, nested(owner, "metadata", "ownerReferences")),
			merge(held, nested(nil, "metadata", "finalizers")), merge(mine, nested([]any{api.FinalizerDataMovement}, "metadata", "finalizers")),
		)},
		{"report the status of data movements, or replace whole ones", byRole, append(moves(
			merge(mine+"/status", nested("Success", "status", "status")), merge(theirs[0]+"/status", nested("Success", "status", "status")), replace(mine, whole(mine)),
		), mounts(merge(mine+"/status", nested("Success", "status", "status")), merge(mine, cancel), remove(mine))...)},
		{"read data movements on another rabbit", byRole, append(moves(
			get(at(s.other, fmt.Sprintf(nearRabbit, s.far))), get(in(s.other)), get(in(s.other)+"?watch=1"), get(in("")), get(in("")+"?labelSelector="+api.LabelInitiator+"%3D"+s.Node), get(in("default")),
		), append(mounts(get(in(s.Rabbit)), get(in("nnf-dm-system"))), attempt{as: far, what: get(in(s.Rabbit))})...)},
		{"list workflows, or change workflows, profiles, file systems or the SystemConfiguration", byRole, both(
			get(lab.Path("Workflow", "default", "")), merge(lab.Path("Workflow", "default", "job"), nested(0, "spec", "userID")), remove(lab.Path("Workflow", "default", "job")), create(lab.Path("Workflow", "default", ""), fixture.Workflow("new", 1001)),
			merge(lab.Path("NnfStorageProfile", "default", s.Profile), lab.Object{}), create(lab.Path("NnfStorageProfile", "default", ""), fixture.Profile("new", fixture.ProfileSpec{})), remove(lab.Path("NnfStorageProfile", "default", s.Profile)),
			merge(lab.Path("NnfDataMovementProfile", "nnf-system", "default"), nested("id", "data", "command")), create(lab.Path("NnfDataMovementProfile", s.Rabbit, ""), with(fixture.MovementProfile("new", false), s.Rabbit, "metadata", "namespace")),
			merge(lab.Path("SystemConfiguration", "default", s.System), nested([]any{}, "spec", "storageNodes")), merge(lab.Path("LustreFileSystem", "default", "global"), nested("/", "spec", "mountRoot")),
		)},
		{"read Secrets", byRole, both(
			get(lab.Path("Secret", "", "")), get(lab.Path("Secret", s.Node, "")), get(lab.Path("Secret", "nnf-system", "nnf-clientmount")), get(lab.Path("Secret", "nnf-dm-system", "nnf-dm-daemon")),
		)},
		{"get a token of any other account, of the other daemon on its node or of another node", byRole, append(append(both(
			tokenOf(account("clientmountd", s.near)), tokenOf(account("nnf-dm", s.near)), tokenOf(account("nnf-dm", s.far)), tokenOf(shared("clientmountd")), tokenOf(shared("nnf-dm")), tokenOf(product.Account{Name: "default", Namespace: s.Node}),
		), mounts(tokenOf(account("nnf-dm", s.Node)))...), moves(tokenOf(account("clientmountd", s.Node)))...)},
		{"impersonate other accounts or users", byRole, slices.Concat(
			impersonate(m, get(near), account("clientmountd", s.near).User(), shared("clientmountd").User()),
			impersonate(v, get(at(s.other, fmt.Sprintf(nearRabbit, s.far))), account("nnf-dm", s.far).User(), shared("nnf-dm").User()),
			impersonate(v, get(own), account("clientmountd", s.Node).User()),
		)},
		{"use ConfigMaps or Leases, or review the tokens of others", byRole, both(
			get("/api/v1/namespaces/kube-system/configmaps"),
			create("/api/v1/namespaces/"+s.Node+"/configmaps", lab.Object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "new"}}),
			create("/apis/coordination.k8s.io/v1/namespaces/"+s.Node+"/leases", lab.Object{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": "new"}}),
			create("/apis/authentication.k8s.io/v1/tokenreviews", lab.Object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": map[string]any{"token": "x"}}),
		)},
		{"create, change or delete accounts, roles, bindings, policies or namespaces", byRole, both(
			create(lab.Path("ServiceAccount", s.Node, ""), lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "new"}}),
			remove(lab.Path("ServiceAccount", s.near, "clientmountd")), merge(lab.Path("ServiceAccount", s.Node, "clientmountd"), nested("y", "metadata", "labels", "new")),
			merge(lab.Path("RoleBinding", s.Node, "compute-daemons-clientmountd"), lab.Object{"subjects": []any{}}), merge(lab.Path("RoleBinding", s.Rabbit, "compute-daemons-nnf-dm-"+s.Rabbit), lab.Object{"subjects": []any{}}),
			merge(lab.Path("ClusterRole", "", "compute-daemons-nnf-dm-movements"), lab.Object{"rules": []any{}}),
			create(lab.Path("ClusterRoleBinding", "", ""), fixture.Binding("new", "cluster-admin", s.Node, "clientmountd")),
			remove(lab.Path("ValidatingAdmissionPolicy", "", "compute-daemons-clientmountd")), remove(lab.Path("ValidatingAdmissionPolicyBinding", "", "compute-daemons-nnf-dm")),
			merge(lab.Path("ValidatingAdmissionPolicy", "", "compute-daemons-nnf-dm"), nested("Ignore", "spec", "failurePolicy")), merge(lab.Path("Namespace", "", s.Node), nested("y", "metadata", "labels", "new")),
		)},
	}
	return rows
}

// permitted are the requests that the daemons send.
func (s *system) permitted() []row {
	m, v, far := s.client("clientmountd", s.Node), s.client("nnf-dm", s.Node), s.client("nnf-dm", s.distant)
	own := s.mountPath(s.Node)
	in := func(ns string) string { return lab.Path("NnfDataMovement", ns, "") }
	mine := lab.Path("NnfDataMovement", s.Rabbit, fmt.Sprintf(nearRabbit, s.Node))
	minesys := lab.Path("NnfDataMovement", "nnf-dm-system", fmt.Sprintf(everyRabbit, s.Node))
	account := func(daemon string) product.Account { d, _ := product.Of(daemon); return d.NodeAccount(s.Node) }
	longer := tokenOf(account("nnf-dm"))
	longer.body = with(longer.body.(lab.Object), 365*24*3600, "spec", "expirationSeconds")
	report := lab.Object{"status": map[string]any{"mounts": []any{map[string]any{"state": "mounted", "ready": true}}, "allReady": true}}
	return []row{
		{"read its own ClientMounts, report their status, and add and remove the finalizer of clientmountd", "", []attempt{
			{as: m, what: get(own)}, {as: m, what: get(lab.Path("ClientMount", s.Node, ""))}, {as: m, what: merge(own+"/status", report).dry()},
			{as: m, what: edit(own, map[string]any{"op": "remove", "path": "/metadata/finalizers/1"}).dry()},
			{as: m, what: merge(own, nested([]any{foreignFinalizer}, "metadata", "finalizers")).dry()},
			{as: m, what: merge(own, nested([]any{api.FinalizerClientMount, foreignFinalizer}, "metadata", "finalizers")).dry()},
		}},
		{"read the ClientMounts of all nodes, the global file systems, the profiles for data movements and the SystemConfiguration; single workflows and storage profiles, by name", "", []attempt{
			{as: v, what: get(lab.Path("ClientMount", "", ""))}, {as: v, what: get(s.mountPath(s.near))}, {as: v, what: get(lab.Path("LustreFileSystem", "", ""))}, {as: v, what: get(lab.Path("NnfDataMovementProfile", "nnf-system", ""))},
			{as: v, what: get(lab.Path("SystemConfiguration", "default", s.System))}, {as: v, what: get(lab.Path("Workflow", "default", "job"))}, {as: m, what: get(lab.Path("NnfStorageProfile", "default", s.Profile))},
			{as: far, what: get(lab.Path("ClientMount", "", ""))}, {as: far, what: get(lab.Path("NnfDataMovementProfile", "nnf-system", ""))}, {as: far, what: get(lab.Path("SystemConfiguration", "default", s.System))},
		}},
		{"read the data movements of its rabbit, and those of Lustre of all nodes", "", []attempt{
			{as: v, what: get(in(s.Rabbit))}, {as: v, what: get(in("nnf-dm-system"))}, {as: v, what: get(lab.Path("NnfDataMovement", s.Rabbit, fmt.Sprintf(nearRabbit, s.near)))}, {as: far, what: get(in("nnf-dm-system"))},
		}},
		{"create data movements in its own name, on its rabbit and for Lustre, for any user and group other than 0, with any path that nnf-dm accepts", "", []attempt{
			{as: v, what: create(in(s.Rabbit), movement(s.Rabbit, "nnf-dm-node-new", s.Node, 1001, 1001)).dry()}, {as: v, what: create(in("nnf-dm-system"), movement("nnf-dm-system", "nnf-dm-new", s.Node, 4711, 1)).dry()},
			{as: v, what: create(in(s.Rabbit), with(with(movement(s.Rabbit, "", s.Node, 1001, 1001), nil, "metadata", "name"), "nnf-dm-node-", "metadata", "generateName")).dry()},
			{as: far, what: create(in("nnf-dm-system"), movement("nnf-dm-system", "nnf-dm-new", s.distant, 1001, 1001)).dry()},
			{as: v, what: create(in(s.Rabbit), with(with(with(movement(s.Rabbit, "nnf-dm-node-new", s.Node, 1001, 1001),
				"-psk4MB --xattrs=none", "spec", "userConfig", "dcpOptions"), "-np 4 --map-by ppr:2:node --mca btl ^tcp", "spec", "userConfig", "mpirunOptions"),
				"/mnt/nnf/ü-1/a,b=c@d/", "spec", "source", "path")).dry()},
		}},
		{"cancel and delete its own data movements", "", []attempt{
			{as: v, what: merge(mine, nested(true, "spec", "cancel")).dry()}, {as: v, what: merge(minesys, nested(true, "spec", "cancel")).dry()}, {as: v, what: remove(mine).dry()}, {as: v, what: remove(minesys).dry()},
		}},
		{"request further tokens of its own accounts, valid for as long as the API server grants", "", []attempt{
			{as: m, what: tokenOf(account("clientmountd"))}, {as: v, what: tokenOf(account("nnf-dm"))},
			{as: v, what: longer},
		}},
	}
}

// harmless returns a request without effect that returns soon.
func (c call) harmless() call {
	if c.method == http.MethodGet {
		c.path = strings.Replace(c.path, "?watch=1", "", 1)
		return c
	}
	return c.dry()
}

// explains reports whether the message of a refusal has the reason that the row is about: that of the
// role, or a rule of the policy that has been evaluated.
func (r row) explains(message string) bool {
	if r.by == byRole {
		return strings.Contains(message, `User "system:serviceaccount:`) && strings.Contains(message, `" cannot `) && !strings.Contains(message, "ValidatingAdmissionPolicy")
	}
	return slices.ContainsFunc(rules[r.text], func(rule string) bool {
		return strings.Contains(message, "ValidatingAdmissionPolicy 'compute-daemons-") && strings.Contains(message, "denied request: "+rule)
	})
}

// rules has the rules of the policies that refuse the requests of a row.
var rules = map[string][]string{
	"change the spec of its own ClientMounts":                                                          {"a node may not change the spec of a ClientMount"},
	"change labels, annotations or owners of its own ClientMounts":                                     {"a node may not change the metadata of a ClientMount"},
	"change finalizers of other programs on its own ClientMounts":                                      {"a node may not change finalizers of a ClientMount"},
	"create data movements with finalizers or owners":                                                  {"a node may not create data movements with finalizers or owners"},
	"create, cancel or delete data movements of user 0 or group 0":                                     {"a node may create, change and delete only data movements of a user and group other than 0"},
	"change anything but `cancel` in its own data movements":                                           {ownMovements, "a node may not change the metadata of a data movement", "a node may change only cancel"},
	"run commands on a rabbit as root, through a path or an option of a data movement":                 {"a path of a data movement must be absolute", "the options of a data movement must be"},
	"create data movements in the name of another node, of the workflow controller, or of none":        {ownMovements},
	"cancel, change, take over or delete data movements of another node or of the workflow controller": {ownMovements},
}

const ownMovements = "a node may create, change and delete only data movements with its name in the label"

// The API server permits what the daemons need, and refuses everything in the table of attempts,
// by the role or by the policy, as the guide says. Nothing that was refused has an effect.
func TestAttempts(t *testing.T) {
	s := newSystem(t)
	paths := s.prepare()
	permitted, refused := s.permitted(), s.refused()
	checkGuide(t, permitted, refused)
	for _, r := range permitted {
		for _, a := range r.with {
			var err error
			// The server uses roles and policies when its watches have delivered them.
			wait.Within(t, patience, fmt.Sprintf("%s: %s", r.text, a.what), func() bool {
				_, err = request(a.what, t, a.as)
				return err == nil
			})
		}
	}
	active := map[*lab.Client]bool{}
	for _, r := range refused {
		if a := r.with[0]; r.by == byPolicy && !active[a.as] {
			active[a.as] = true
			wait.Within(t, patience, "the policy: "+r.text, func() bool {
				_, err := request(a.what.dry(), t, a.as)
				return err != nil
			})
		}
	}
	versions := func() (all []string) {
		for _, p := range paths {
			o, err := request(get(p), t, s.Cluster.Client)
			s.Must(err)
			all = append(all, p+" "+o.String("metadata", "resourceVersion"))
		}
		return all
	}
	before, attempts := versions(), 0
	for _, r := range refused {
		t.Run(r.text, func(t *testing.T) {
			for _, a := range r.with {
				attempts++
				err := a.send(t, a.as, a.what)
				if code, message := status(err); code != http.StatusForbidden || !r.explains(message) {
					t.Errorf("%s: %d %s, want 403 by the %s", a.what, code, message, r.by)
				}
				// A request that not even an administrator may send, such as one for a wrong path, shows nothing.
				if r.by == byRole {
					if err := a.send(t, s.Cluster.Client, a.what.harmless()); err != nil {
						t.Errorf("%s: an administrator: %v", a.what, err)
					}
				}
			}
		})
	}
	if after := versions(); !slices.Equal(after, before) {
		t.Errorf("refused requests have changed objects:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if attempts < 40 {
		t.Errorf("only %d attempts", attempts)
	}
	t.Logf("%d attempts were refused", attempts)
	s.sharedAccounts()
	s.status()
}

// The policies also refuse what the roles do not permit, in case an account has further roles.
func TestPoliciesAlone(t *testing.T) {
	s := newSystem(t)
	s.prepare()
	s.Grant(s.Node, s.Node, "clientmountd", []any{fixture.Rule(api.GroupDWS, "clientmounts", "create", "delete", "deletecollection", "patch", "update"), fixture.Rule(api.GroupDWS, "clientmounts/status", "patch")})
	s.Grant(s.near, s.Node, "nnf-dm", []any{fixture.Rule(api.GroupNNF, "nnfdatamovements", "create", "delete", "deletecollection", "patch", "update")})
	m, v := s.client("clientmountd", s.Node), s.client("nnf-dm", s.Node)
	own, near := s.mountPath(s.Node), s.mountPath(s.near)
	made := fixture.ClientMount("new", s.Node, fixture.ClientMountSpec{Profile: s.Profile, Mounts: []fixture.MountSpec{{Path: s.Path("new"), Type: "xfs"}}})
	far := lab.Path("NnfDataMovement", s.other, fmt.Sprintf(nearRabbit, s.far))
	for _, a := range []attempt{
		{as: m, what: create(lab.Path("ClientMount", s.Node, ""), made)}, {as: m, what: remove(own)}, {as: m, what: remove(lab.Path("ClientMount", s.Node, ""))},
		{as: m, what: merge(near+"/status", lab.Object{"status": map[string]any{"mounts": []any{}, "allReady": true}})},
		{as: m, what: edit(near, map[string]any{"op": "remove", "path": "/metadata/finalizers/1"})}, {as: m, what: remove(near)},
		{as: v, what: merge(far, nested(true, "spec", "cancel"))}, {as: v, what: remove(far)}, {as: v, what: remove(lab.Path("NnfDataMovement", s.other, ""))},
		{as: v, what: create(lab.Path("NnfDataMovement", s.other, ""), movement(s.other, "nnf-dm-node-new", s.far, 1001, 1001))},
	} {
		// The server uses the roles and policies when its watches have delivered them.
		code, message := 0, ""
		wait.Within(t, patience, "a role that permits "+a.what.String(), func() bool {
			_, err := request(a.what.dry(), t, a.as)
			code, message = status(err)
			return code != http.StatusOK && !strings.Contains(message, "cannot ")
		})
		if code != http.StatusForbidden || !strings.Contains(message, "ValidatingAdmissionPolicy") {
			t.Errorf("%s: %d %s, want 403 by the policy", a.what, code, message)
		}
	}
}

// sharedAccounts checks that the policies do not affect the accounts that all nodes share.
func (s *system) sharedAccounts() {
	s.t.Helper()
	client := func(daemon string) *lab.Client {
		token, err := os.ReadFile(filepath.Join(s.Cluster.Dir, daemon, product.TokenFile))
		s.Must(err)
		return s.Client(token)
	}
	m, v := client("clientmountd"), client("nnf-dm")
	for _, a := range []attempt{
		{as: m, what: merge(s.mountPath(s.near), nested("y", "metadata", "labels", "new"))},
		{as: m, what: merge(s.mountPath(s.near), nested("unmounted", "spec", "desiredState"))},
		{as: v, what: create(lab.Path("NnfDataMovement", s.other, ""), movement(s.other, "nnf-dm-node-new", s.near, 0, 0))},
		{as: v, what: merge(lab.Path("NnfDataMovement", s.other, fmt.Sprintf(nearRabbit, s.far)), nested(1, "spec", "userId"))},
		{as: v, what: remove(lab.Path("NnfDataMovement", s.Rabbit, "nnf-dm-node-copyin"))},
	} {
		if _, err := request(a.what.dry(), s.t, a.as); err != nil {
			s.t.Errorf("the shared account: %s: %v", a.what, err)
		}
	}
}

// status checks that requests for the status change nothing else, and that others do not change
// the status: the server accepts them, but ignores the rest.
func (s *system) status() {
	s.t.Helper()
	m, own := s.client("clientmountd", s.Node), s.mountPath(s.Node)
	before, err := request(get(own), s.t, s.Cluster.Client)
	s.Must(err)
	all := lab.Object{
		"metadata": map[string]any{"labels": map[string]any{foreignLabel: "y"}, "finalizers": []any{}},
		"spec":     map[string]any{"desiredState": "unmounted"},
		"status":   map[string]any{"mounts": []any{map[string]any{"state": "mounted", "ready": true}}, "allReady": true},
	}
	after, err := request(merge(own+"/status", all), s.t, m)
	s.Must(err)
	if !after.Ready("mounted") {
		s.t.Error("the status was not written")
	}
	for _, field := range []string{"labels", "finalizers"} {
		if fmt.Sprint(after.At("metadata", field)) != fmt.Sprint(before.At("metadata", field)) {
			s.t.Errorf("a request for the status has changed %s: %v", field, after.At("metadata", field))
		}
	}
	if fmt.Sprint(after["spec"]) != fmt.Sprint(before["spec"]) {
		s.t.Errorf("a request for the status has changed the spec: %v", after["spec"])
	}
}

// checkGuide compares the rows with the tables in docs/security.md.
func checkGuide(t *testing.T, permitted, refused []row) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(fixture.Root(t), "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What a compromised node can do\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var want, got []string
	for _, r := range permitted {
		want = append(want, "| "+r.text+" |\n")
	}
	for _, r := range refused {
		want = append(want, "| "+r.text+" | "+r.by+" |\n")
	}
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| ---") && !strings.HasPrefix(line, "| With") {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/security.md has\n%s\nthe test checks\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
}
