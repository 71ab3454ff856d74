package offload

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// What scenes share: a global file system and the default profile.
const (
	global  = "/lus/global"
	profile = "default"
)

type fields = map[string]any

const (
	dwsVersion = api.GroupDWS + "/v1alpha7"
	nnfVersion = api.GroupNNF + "/v1alpha11"
	lusVersion = api.GroupLUS + "/v1beta1"
)

// furnish makes what the administrator of a site has made.
func furnish(_ *testing.T, s *stage.Stage) {
	s.Apply(fileSystem("global", global))
	s.Apply(dmProfile(profile, true))
}

func fileSystem(name, root string) lab.Object {
	return lab.Object{
		"apiVersion": lusVersion, "kind": "LustreFileSystem", "metadata": fields{"name": name, "namespace": "default"},
		"spec": fields{"name": name, "mgsNids": "10.1.1.1@tcp", "mountRoot": root},
	}
}

// dmProfile is one with which the rabbit's stand-in can copy, and which the real
// definitions accept: they have rules for commands that contain stat or mkdir.
func dmProfile(name string, isDefault bool) lab.Object {
	return lab.Object{
		"apiVersion": nnfVersion, "kind": "NnfDataMovementProfile", "metadata": fields{"name": name, "namespace": "nnf-system"},
		"data": fields{
			"default": isDefault, "pinned": false, "slots": 8, "maxSlots": 0, "createDestDir": true, "progressIntervalSeconds": 1,
			"command":        "ulimit -n 2048 && mpirun --allow-run-as-root --hostfile $HOSTFILE dcp --progress 1 --uid $UID --gid $GID $SRC $DEST",
			"statCommand":    "find $PATH -maxdepth 0 -type d -printf directory -o -printf file",
			"mkdirCommand":   "install -d $PATH",
			"setprivCommand": "setpriv --euid $UID --egid $GID --clear-groups",
		},
	}
}

func (s *scene) namespace(name string) {
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": fields{"name": name}})
}

// configuration writes the scene's SystemConfiguration.
func (s *scene) configuration(storage []any, external ...any) {
	s.Apply(lab.Object{
		"apiVersion": dwsVersion, "kind": "SystemConfiguration", "metadata": fields{"name": s.Node, "namespace": "default"},
		"spec": fields{"storageNodes": storage, "externalComputeNodes": external},
	})
}

func storageNode(name string, computes ...string) fields {
	access := []any{}
	for i, c := range computes {
		access = append(access, fields{"name": c, "index": i})
	}
	return fields{"type": "Rabbit", "name": name, "computesAccess": access}
}

func (s *scene) system() { s.configuration([]any{storageNode(s.rabbit, s.Node)}) }

// workflow makes alice's workflow, in the state in which jobs run.
func (s *scene) workflow(change func(lab.Object)) {
	s.t.Helper()
	o := s.newWorkflow(s.job)
	if change != nil {
		change(o)
	}
	made, err := s.Cluster.Create(s.ctx(), o)
	s.must(err)
	s.uid = made.String("metadata", "uid")
	s.path = "/mnt/nnf/" + s.uid + "-0"
	s.onRabbit = s.path
	if s.k == gfs2 {
		s.onRabbit += "/" + s.rabbit + "-3"
	}
}

func (s *scene) newWorkflow(name string) lab.Object {
	return lab.Object{
		"apiVersion": dwsVersion, "kind": "Workflow", "metadata": fields{"name": name, "namespace": "default"},
		"spec": fields{
			"desiredState": "PreRun", "wlmID": "5f239bd8", "jobID": "f9Tk", "userID": 1001, "groupID": 1001, "dwDirectives": []any{},
		},
		"status": fields{"state": "PreRun", "status": "Completed", "ready": true},
	}
}

// mounts makes the ClientMounts of compute and rabbit, mounted.
func (s *scene) mounts() {
	s.t.Helper()
	s.mounted(s.clientMount("computes", s.Node, s.entry(s.path)))
	s.mounted(s.clientMount("servers", s.rabbit, s.entry(s.onRabbit)))
}

// entry mounts the scene's storage at path.
func (s *scene) entry(path string) fields {
	device := fields{"type": s.k.device, "deviceReference": fields{"objectReference": s.storage(), "data": 3}}
	if s.k == lustre {
		device["lustre"] = fields{"fileSystemName": "fs0", "mgsAddresses": "10.0.0.1@tcp"}
	}
	return fields{"mountPath": path, "type": s.k.name, "targetType": "directory", "options": "", "setPermissions": false, "device": device}
}

// storage is the reference of a source.
func (s *scene) storage() fields {
	if s.k == lustre {
		return fields{"kind": "NnfStorage", "name": s.job + "-0", "namespace": "default"}
	}
	return fields{"kind": "NnfNodeStorage", "name": "default-" + s.job + "-0-gfs2-0", "namespace": s.rabbit}
}

// clientMount is one of the scene's workflow.
func (s *scene) clientMount(name, namespace string, entries ...fields) lab.Object {
	mounts := []any{}
	for _, e := range entries {
		mounts = append(mounts, e)
	}
	return lab.Object{
		"apiVersion": dwsVersion, "kind": "ClientMount",
		"metadata": fields{"name": s.job + "-" + name, "namespace": namespace, "labels": fields{
			api.LabelWorkflowName: s.job, api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: s.uid,
			api.LabelDirectiveIndex: "0", api.LabelJobID: "f9Tk",
		}},
		"spec": fields{"node": namespace, "desiredState": "mounted", "mounts": mounts},
	}
}

// mounted writes a ClientMount and says that all of it is mounted.
func (s *scene) mounted(cm lab.Object) {
	s.t.Helper()
	s.Apply(cm)
	s.reports(cm, "mounted", true)
}

// reports writes the status that a clientmountd would.
func (s *scene) reports(cm lab.Object, state string, ready bool) {
	s.t.Helper()
	list := []any{}
	for range cm.At("spec", "mounts").([]any) {
		list = append(list, fields{"state": state, "ready": ready})
	}
	s.patchStatus("ClientMount", cm.Namespace(), cm.Name(), fields{"mounts": list, "allReady": ready})
}

func (s *scene) patchStatus(kind, namespace, name string, status fields) {
	s.t.Helper()
	_, err := s.Cluster.PatchPath(s.ctx(), lab.Path(kind, namespace, name)+"/status", "application/merge-patch+json", fields{"status": status})
	s.must(err)
}

// where is the namespace of the scene's movements.
func (s *scene) where() string {
	if s.k.system {
		return "nnf-dm-system"
	}
	return s.rabbit
}

// movement reads one from the API server, nil when there is none.
func (s *scene) movement(uid string) lab.Object {
	s.t.Helper()
	o, err := s.Cluster.Get(s.ctx(), "NnfDataMovement", s.where(), uid)
	if lab.IsNotFound(err) {
		return nil
	}
	s.must(err)
	return o
}

// movements counts those of the scene's workflow.
func (s *scene) movements() int {
	s.t.Helper()
	list, err := s.Cluster.Do(s.ctx(), http.MethodGet, lab.Path("NnfDataMovement", "", "")+"?labelSelector="+api.LabelOwnerName+"%3D"+s.job, "", nil)
	s.must(err)
	items, _ := list["items"].([]any)
	return len(items)
}

// rabbitSays writes a movement's status as a rabbit would.
func (s *scene) rabbitSays(uid string, status fields) {
	s.t.Helper()
	s.patchStatus("NnfDataMovement", s.where(), uid, status)
}

// takes is what a rabbit does first: it keeps the object until the copy has
// ended.
func (s *scene) takes(uid string) { s.finalizers(uid, api.FinalizerDataMovement) }

func (s *scene) finalizers(uid string, list ...string) {
	s.t.Helper()
	_, err := s.Cluster.Patch(s.ctx(), "NnfDataMovement", s.where(), uid, lab.Object{"metadata": fields{"finalizers": list}})
	s.must(err)
}

// stamp writes a time as the rabbit does.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// began is a time with all the digits that the rabbit writes.
var began = time.Date(2025, 4, 1, 16, 46, 36, 535519000, time.UTC)

func running(more fields) fields {
	return with(fields{"state": "Running", "startTime": stamp(began), "commandStatus": fields{"command": "mpirun dcp"}}, more)
}

func finished(result string, more fields) fields {
	return with(fields{"state": "Finished", "status": result, "startTime": stamp(began), "endTime": stamp(began.Add(time.Minute))}, more)
}

func with(a, b fields) fields {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// foreign makes a movement that this node's daemon has not made, with the labels
// of one but for the changes; an empty value leaves a label out.
func (s *scene) foreign(namespace, name string, userID int, labels map[string]string) {
	s.t.Helper()
	all := fields{
		api.LabelInitiator: s.Node, api.LabelTeardownState: "PostRun",
		api.LabelWorkflowName: s.job, api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: s.uid,
		api.LabelOwnerKind: "Workflow", api.LabelOwnerName: s.job, api.LabelOwnerNamespace: "default", api.LabelOwnerUID: s.uid,
	}
	for k, v := range labels {
		if all[k] = v; v == "" {
			delete(all, k)
		}
	}
	s.Apply(lab.Object{
		"apiVersion": nnfVersion, "kind": "NnfDataMovement", "metadata": fields{"name": name, "namespace": namespace, "labels": all},
		"spec": fields{"userId": userID, "groupId": userID, "source": fields{"path": "/a"}, "destination": fields{"path": "/b"}},
	})
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = s.Cluster.Delete(ctx, "NnfDataMovement", namespace, name)
	})
}

// fill puts the names of this run into a text.
func (s *scene) fill(text string) string {
	return strings.NewReplacer("NODE", s.Node, "RABBIT", s.rabbit, "JOB", s.job, "PATH", s.path, "SERVER", s.onRabbit).Replace(text)
}
