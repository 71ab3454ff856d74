package offload

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Objects that the tests share: a global file system and the default profile.
const (
	global  = "/lus/global"
	profile = "default"
)

type fields = map[string]any

// createShared creates the objects that the administrator of a site creates.
func createShared(_ *testing.T, s *fixture.Fixture) {
	s.Apply(fixture.FileSystem("global", global), fixture.MovementProfile(profile, true))
}

// configuration writes the node's SystemConfiguration.
func (s *env) configuration(storage []any, external ...any) {
	s.t.Helper()
	s.Apply(fixture.SystemConfiguration(s.Node, storage, external...))
}

func (s *env) system() { s.configuration([]any{fixture.StorageNode(s.Rabbit, s.Node)}) }

// workflow creates alice's workflow, in the state in which jobs run.
func (s *env) workflow(change func(lab.Object)) {
	s.t.Helper()
	o := fixture.Workflow(s.job, alice.uid)
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

// mounts creates the ClientMounts of compute and rabbit in state mounted.
func (s *env) mounts() {
	s.t.Helper()
	s.Mounted(s.clientMount("computes", s.Node, s.entry(s.path)))
	s.Mounted(s.clientMount("servers", s.Rabbit, s.entry(s.onRabbit)))
}

// entry returns a mount entry of the test's storage at path.
func (s *env) entry(path string) fields {
	device := fields{"type": s.k.device, "deviceReference": fields{"objectReference": s.storage(), "data": 3}}
	if s.k == lustre {
		device["lustre"] = fields{"fileSystemName": "fs0", "mgsAddresses": "10.0.0.1@tcp"}
	}
	return fields{"mountPath": path, "type": s.k.name, "targetType": "directory", "options": "", "setPermissions": false, "device": device}
}

// storage returns the storage reference of a source.
func (s *env) storage() fields {
	if s.k == lustre {
		return fields{"kind": "NnfStorage", "name": s.job + "-0", "namespace": "default"}
	}
	return fields{"kind": "NnfNodeStorage", "name": "default-" + s.job + "-0-gfs2-0", "namespace": s.Rabbit}
}

// clientMount creates a ClientMount of the test's workflow.
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

// where returns the namespace of the test's movements.
func (s *env) where() string {
	if s.k.system {
		return "nnf-dm-system"
	}
	return s.Rabbit
}

// takes adds the finalizer of the rabbit, which keeps the object until the copy has ended.
func (s *env) takes(uid string) { s.finalizers(uid, api.FinalizerDataMovement) }

func (s *env) finalizers(uid string, list ...string) {
	s.t.Helper()
	_, err := s.Cluster.Patch(s.ctx(), "NnfDataMovement", s.where(), uid, lab.Object{"metadata": fields{"finalizers": list}})
	s.Must(err)
}

// startTime has all the digits that the rabbit writes.
var startTime = time.Date(2025, 4, 1, 16, 46, 36, 535519000, time.UTC)

func running(more fields) fields {
	return with(fields{"state": "Running", "startTime": fixture.Stamp(startTime), "commandStatus": fields{"command": "mpirun dcp"}}, more)
}

func finished(result string, more fields) fields {
	return with(fields{"state": "Finished", "status": result, "startTime": fixture.Stamp(startTime), "endTime": fixture.Stamp(startTime.Add(time.Minute))}, more)
}

func with(a, b fields) fields {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// foreign creates a movement that this daemon has not created, with the usual labels except
// for the changes; an empty value omits a label.
func (s *env) foreign(namespace, name string, userID int, labels map[string]string) {
	s.t.Helper()
	o := fixture.DataMovement(namespace, name, s.Node, s.job, s.uid, fields{"userId": userID, "groupId": userID, "source": fields{"path": "/a"}, "destination": fields{"path": "/b"}})
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

// fill inserts the names of this test run into a text.
func (s *env) fill(text string) string {
	return strings.NewReplacer("NODE", s.Node, "RABBIT", s.Rabbit, "JOB", s.job, "PATH", s.path, "SERVER", s.onRabbit).Replace(text)
}
