package world

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var (
	dws = api.GroupDWS + "/" + api.VersionsDWS[0]
	nnf = api.GroupNNF + "/" + api.VersionsNNF[0]
	lus = api.GroupLUS + "/" + api.VersionsLUS[0]
)

// Apply writes objects.
func (w *World) Apply(objects ...lab.Object) {
	w.tb.Helper()
	for _, o := range objects {
		if _, err := w.Cluster.Apply(w.Context(w.Patience), o); err != nil {
			w.tb.Fatalf("%s %s: %v", o.String("kind"), o.Name(), err)
		}
	}
}

// ApplyFile does what kubectl apply --server-side --validate=strict does with a
// file, and returns what the server has then, by kind.
func (w *World) ApplyFile(file string) map[string]lab.Object {
	w.tb.Helper()
	text, err := os.ReadFile(file)
	w.Must(err)
	made := map[string]lab.Object{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var o lab.Object
		w.Must(yaml.Unmarshal(document, &o))
		kind := o.String("kind")
		path := lab.Path(kind, o.Namespace(), o.Name())
		body, err := json.Marshal(o)
		w.Must(err)
		o, err = w.Cluster.Do(w.Context(w.Patience), http.MethodPatch, path+"?fieldManager=administrator&fieldValidation=Strict", "application/apply-patch+yaml", body)
		if err != nil {
			w.tb.Fatalf("%s: %s %v", file, path, err)
		}
		made[kind] = o
	}
	return made
}

// Namespace makes a namespace.
func (w *World) Namespace(name string) {
	w.tb.Helper()
	w.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}})
}

// SetStatus merges into the status of an object.
func (w *World) SetStatus(kind, namespace, name string, status lab.Object) {
	w.tb.Helper()
	w.Must(w.Cluster.PatchStatus(w.Context(w.Patience), kind, namespace, name, status))
}

// SystemConfiguration is the one that is called like the node. Each rabbit serves
// its computes.
func SystemConfiguration(name string, storage []any, external ...any) lab.Object {
	return lab.Object{
		"apiVersion": dws, "kind": "SystemConfiguration", "metadata": map[string]any{"name": name, "namespace": "default"},
		"spec": map[string]any{"storageNodes": storage, "externalComputeNodes": external},
	}
}

// StorageNode is a rabbit with its computes, for SystemConfiguration.
func StorageNode(name string, computes ...string) map[string]any {
	access := []any{}
	for i, c := range computes {
		access = append(access, map[string]any{"name": c, "index": i})
	}
	return map[string]any{"type": "Rabbit", "name": name, "computesAccess": access}
}

// FileSystem is a global Lustre file system.
func FileSystem(name, root string) lab.Object {
	return lab.Object{
		"apiVersion": lus, "kind": "LustreFileSystem", "metadata": map[string]any{"name": name, "namespace": "default"},
		"spec": map[string]any{"name": name, "mgsNids": "10.1.1.1@tcp", "mountRoot": root},
	}
}

// Command is what MovementProfile makes a rabbit run, as administrators write it:
// what the user chooses comes in front of the ids.
const Command = "ulimit -n 2048 && mpirun --allow-run-as-root --hostfile $HOSTFILE dcp --progress 1 --uid $UID --gid $GID $SRC $DEST"

// MovementProfile is one with which the rabbit's stand-in can copy, and which the
// real definitions accept: they have rules for commands that contain stat or mkdir.
func MovementProfile(name string, isDefault bool) lab.Object {
	return lab.Object{
		"apiVersion": nnf, "kind": "NnfDataMovementProfile", "metadata": map[string]any{"name": name, "namespace": "nnf-system"},
		"data": map[string]any{
			"default": isDefault, "pinned": false, "slots": 8, "maxSlots": 0, "createDestDir": true, "progressIntervalSeconds": 1,
			"command":        Command,
			"statCommand":    "find $PATH -maxdepth 0 -type d -printf directory -o -printf file",
			"mkdirCommand":   "install -d $PATH",
			"setprivCommand": "setpriv --euid $UID --egid $GID --clear-groups",
		},
	}
}

// Workflow is a user's in the state in which jobs run.
func Workflow(name string, user int) lab.Object {
	return lab.Object{
		"apiVersion": dws, "kind": "Workflow", "metadata": map[string]any{"name": name, "namespace": "default"},
		"spec": map[string]any{
			"desiredState": "PreRun", "wlmID": "5f239bd8-30db-450b-8c2c-a1a7c8631a1a", "jobID": "f9Tk",
			"userID": user, "groupID": user, "dwDirectives": []any{},
		},
		"status": map[string]any{"state": "PreRun", "status": "Completed", "ready": true},
	}
}

// DataMovement is one of a workflow in namespace default, with the labels that nnf-dm
// on the node gives it.
func DataMovement(namespace, name, node, workflow, workflowUID string, spec map[string]any) lab.Object {
	return lab.Object{
		"apiVersion": nnf, "kind": "NnfDataMovement",
		"metadata": map[string]any{"name": name, "namespace": namespace, "labels": map[string]any{
			api.LabelInitiator: node, api.LabelTeardownState: "PostRun",
			api.LabelWorkflowName: workflow, api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: workflowUID,
			api.LabelOwnerKind: "Workflow", api.LabelOwnerName: workflow, api.LabelOwnerNamespace: "default", api.LabelOwnerUID: workflowUID,
		}},
		"spec": spec,
	}
}

// Client is one with a token of its own.
func (w *World) Client(token []byte) *lab.Client {
	w.tb.Helper()
	c, err := lab.NewClient(w.Write("kubeconfig", Kubeconfig(w.Cluster.URL, w.Cluster.CA(), token)))
	w.Must(err)
	w.tb.Cleanup(c.Close)
	return c
}

// Kubeconfig is one with a token.
func Kubeconfig(url string, ca, token []byte) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: a, user: {token: %q}}]
`, url, base64.StdEncoding.EncodeToString(ca), bytes.TrimSpace(token))
}

// UseProfile makes the world's storage profile.
func (w *World) UseProfile(p ProfileSpec) {
	w.tb.Helper()
	w.Apply(Profile(w.Profile, p))
}

// Volume makes the logical volume for allocation index, in a shared group.
func (w *World) Volume(index int, o lab.VolumeOptions) *lab.Volume {
	w.tb.Helper()
	vg, lv := VolumeNames(w.Owner, "0", index, true)
	v, err := w.AddVolume(vg, lv, o)
	w.Must(err)
	return v
}

// Path is a mount path of the world.
func (w *World) Path(name string) string { return filepath.Join(w.Base, name) }

// Mount asks for mounts on the node.
func (w *World) Mount(name string, mounts ...MountSpec) lab.Object {
	w.tb.Helper()
	o := ClientMount(name, w.Node, ClientMountSpec{Profile: w.Profile, OwnerUID: w.Owner, Mounts: mounts})
	w.Apply(o)
	return o
}

// MountAndWait asks for mounts on the node and waits until they are ready.
func (w *World) MountAndWait(name string, mounts ...MountSpec) lab.Object {
	w.tb.Helper()
	w.Mount(name, mounts...)
	return w.Await(name, "mounted")
}

// Unmount asks for the unmount and waits until it is done.
func (w *World) Unmount(name string) {
	w.tb.Helper()
	w.Want(name, "unmounted")
	w.Await(name, "unmounted")
}

// Want changes the desired state.
func (w *World) Want(name, state string) {
	w.tb.Helper()
	change := lab.Object{"spec": map[string]any{"desiredState": state}}
	_, err := w.Cluster.Patch(w.Context(w.Patience), "ClientMount", w.Node, name, change)
	w.Must(err)
}

// Await waits until the object is ready in the state.
func (w *World) Await(name, state string) lab.Object {
	w.tb.Helper()
	return w.AwaitStatus(name, func(o lab.Object) bool { return o.Ready(state) })
}

// AwaitError waits until the object has an error in its status.
func (w *World) AwaitError(name string) lab.Object {
	w.tb.Helper()
	return w.AwaitStatus(name, func(o lab.Object) bool { return o.Severity() != "" })
}

// AwaitStatus waits until the object fits.
func (w *World) AwaitStatus(name string, fits func(lab.Object) bool) lab.Object {
	w.tb.Helper()
	o, err := w.Cluster.WaitStatus(w.Context(w.Patience), w.Node, name, fits)
	if err != nil {
		w.tb.Fatalf("%s: %v%s", name, err, w.statusOf(name))
	}
	return o
}

func (w *World) statusOf(name string) string {
	now, err := w.Cluster.Get(w.Context(w.Patience), "ClientMount", w.Node, name)
	if err != nil {
		return "; " + err.Error()
	}
	return fmt.Sprintf("; the status is %v", now["status"])
}

// Remove deletes the object and does not wait.
func (w *World) Remove(name string) {
	w.tb.Helper()
	if err := w.Cluster.Delete(w.Context(w.Patience), "ClientMount", w.Node, name); err != nil && !lab.IsNotFound(err) {
		w.tb.Fatal(err)
	}
}

// Delete deletes the object and waits until it is gone.
func (w *World) Delete(name string) {
	w.tb.Helper()
	w.Remove(name)
	if err := w.Cluster.WaitGone(w.Context(w.Patience), "ClientMount", w.Node, name); err != nil {
		w.tb.Fatalf("%s is not gone: %v%s", name, err, w.statusOf(name))
	}
}
