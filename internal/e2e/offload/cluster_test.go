package offload

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// What tests share: a global file system and the default profile.
const (
	global  = "/lus/global"
	profile = "default"
)

type fields = map[string]any

// furnish makes what the administrator of a site has made.
func furnish(_ *testing.T, s *world.World) {
	s.Apply(world.FileSystem("global", global), world.MovementProfile(profile, true))
}

// configuration writes the node's SystemConfiguration.
func (s *env) configuration(storage []any, external ...any) {
	s.t.Helper()
	s.Apply(world.SystemConfiguration(s.Node, storage, external...))
}

func (s *env) system() { s.configuration([]any{world.StorageNode(s.Rabbit, s.Node)}) }

// workflow makes alice's workflow, in the state in which jobs run.
func (s *env) workflow(change func(lab.Object)) {
	s.t.Helper()
	o := world.Workflow(s.job, int(alice.uid))
	if change != nil {
		change(o)
	}
	made, err := s.Cluster.Create(s.ctx(), o)
	s.Must(err)
	s.uid = made.String("metadata", "uid")
	s.path = "/mnt/nnf/" + s.uid + "-0"
	s.onRabbit = s.path
	if s.k == gfs2 {
		s.onRabbit += "/" + s.Rabbit + "-3"
	}
}

// mounts makes the ClientMounts of compute and rabbit, mounted.
func (s *env) mounts() {
	s.t.Helper()
	s.Mounted(s.clientMount("computes", s.Node, s.entry(s.path)))
	s.Mounted(s.clientMount("servers", s.Rabbit, s.entry(s.onRabbit)))
}

// entry mounts the test's storage at path.
func (s *env) entry(path string) fields {
	device := fields{"type": s.k.device, "deviceReference": fields{"objectReference": s.storage(), "data": 3}}
	if s.k == lustre {
		device["lustre"] = fields{"fileSystemName": "fs0", "mgsAddresses": "10.0.0.1@tcp"}
	}
	return fields{"mountPath": path, "type": s.k.name, "targetType": "directory", "options": "", "setPermissions": false, "device": device}
}

// storage is the reference of a source.
func (s *env) storage() fields {
	if s.k == lustre {
		return fields{"kind": "NnfStorage", "name": s.job + "-0", "namespace": "default"}
	}
	return fields{"kind": "NnfNodeStorage", "name": "default-" + s.job + "-0-gfs2-0", "namespace": s.Rabbit}
}

// clientMount is one of the test's workflow.
func (s *env) clientMount(name, namespace string, entries ...fields) lab.Object {
	mounts := []any{}
	for _, e := range entries {
		mounts = append(mounts, e)
	}
	return lab.Object{
		"apiVersion": api.GroupDWS + "/" + api.VersionsDWS[0], "kind": "ClientMount",
		"metadata": fields{"name": s.job + "-" + name, "namespace": namespace, "labels": fields{
			api.LabelWorkflowName: s.job, api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: s.uid,
			api.LabelDirectiveIndex: "0", api.LabelJobID: "f9Tk",
		}},
		"spec": fields{"node": namespace, "desiredState": "mounted", "mounts": mounts},
	}
}

// where is the namespace of the test's movements.
func (s *env) where() string {
	if s.k.system {
		return "nnf-dm-system"
	}
	return s.Rabbit
}

// takes is what a rabbit does first: it keeps the object until the copy has
// ended.
func (s *env) takes(uid string) { s.finalizers(uid, api.FinalizerDataMovement) }

func (s *env) finalizers(uid string, list ...string) {
	s.t.Helper()
	_, err := s.Cluster.Patch(s.ctx(), "NnfDataMovement", s.where(), uid, lab.Object{"metadata": fields{"finalizers": list}})
	s.Must(err)
}

// began is a time with all the digits that the rabbit writes.
var began = time.Date(2025, 4, 1, 16, 46, 36, 535519000, time.UTC)

func running(more fields) fields {
	return with(fields{"state": "Running", "startTime": world.Stamp(began), "commandStatus": fields{"command": "mpirun dcp"}}, more)
}

func finished(result string, more fields) fields {
	return with(fields{"state": "Finished", "status": result, "startTime": world.Stamp(began), "endTime": world.Stamp(began.Add(time.Minute))}, more)
}

func with(a, b fields) fields {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// foreign makes a movement that this node's daemon has not made, with the labels
// of one but for the changes; an empty value leaves a label out.
func (s *env) foreign(namespace, name string, userID int, labels map[string]string) {
	s.t.Helper()
	o := world.DataMovement(namespace, name, s.Node, s.job, s.uid, fields{"userId": userID, "groupId": userID, "source": fields{"path": "/a"}, "destination": fields{"path": "/b"}})
	all := o.At("metadata", "labels").(fields)
	for k, v := range labels {
		if all[k] = v; v == "" {
			delete(all, k)
		}
	}
	s.Apply(o)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = s.Cluster.Delete(ctx, "NnfDataMovement", namespace, name)
	})
}

// fill puts the names of this run into a text.
func (s *env) fill(text string) string {
	return strings.NewReplacer("NODE", s.Node, "RABBIT", s.Rabbit, "JOB", s.job, "PATH", s.path, "SERVER", s.onRabbit).Replace(text)
}
