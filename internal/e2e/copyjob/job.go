package copyjob

import (
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Job is a workflow in PreRun whose file systems are mounted.
type Job struct {
	Name        string
	UID         string // of the workflow, which names the mounts
	User, Group int

	node *Compute
}

// Job makes the workflow of a user, and a gfs2 file system for each directive.
func (n *Compute) Job(name string, user int, directives ...int) *Job {
	n.t.Helper()
	o := lab.Object{
		"apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "Workflow",
		"metadata": map[string]any{"name": name, "namespace": "default"},
		"spec": map[string]any{
			"desiredState": "PreRun", "wlmID": "5f239bd8-30db-450b-8c2c-a1a7c8631a1a", "jobID": "f9Tk",
			"userID": user, "groupID": user, "dwDirectives": []any{},
		},
		"status": map[string]any{"state": "PreRun", "status": "Completed", "ready": true},
	}
	made, err := n.Cluster.Apply(n.Context(patience), o)
	if err != nil {
		n.t.Fatal(err)
	}
	j := &Job{Name: name, UID: made.String("metadata", "uid"), User: user, Group: user, node: n}
	for _, d := range directives {
		j.mount(d)
	}
	return j
}

// Mount is where the compute sees the file system of a directive.
func (j *Job) Mount(directive int) string { return fmt.Sprintf("/mnt/nnf/%s-%d", j.UID, directive) }

// OnRabbit is where the rabbit sees it.
func (j *Job) OnRabbit(directive int) string { return j.Mount(directive) + "/" + j.node.Rabbit + "-3" }

// Ref names the workflow in a request.
func (j *Job) Ref() *pb.DataMovementWorkflow {
	return &pb.DataMovementWorkflow{Name: j.Name, Namespace: "default"}
}

// Request is a wish to copy a path of directive 0; everything is left to the
// profile.
func (j *Job) Request(path, destination string) *pb.DataMovementCreateRequest {
	return &pb.DataMovementCreateRequest{
		Workflow: j.Ref(), Source: j.Mount(0) + path, Destination: Global + destination, Slots: -1, MaxSlots: -1,
	}
}

// mount makes the two ClientMounts of a directive, which say that all is done.
func (j *Job) mount(directive int) {
	j.node.t.Helper()
	n := j.node
	for where, path := range map[string]string{n.Node: j.Mount(directive), n.Rabbit: j.OnRabbit(directive)} {
		cm := lab.Object{
			"apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "ClientMount",
			"metadata": map[string]any{
				"name": fmt.Sprintf("default-%s-%d", j.Name, directive), "namespace": where,
				"labels": map[string]any{
					api.LabelWorkflowName: j.Name, api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: j.UID,
					api.LabelDirectiveIndex: fmt.Sprint(directive), api.LabelJobID: "f9Tk",
				},
			},
			"spec": map[string]any{"node": where, "desiredState": "mounted", "mounts": []any{map[string]any{
				"mountPath": path, "type": "gfs2", "targetType": "directory", "options": "", "setPermissions": false,
				"device": map[string]any{"type": "reference", "deviceReference": map[string]any{
					"objectReference": map[string]any{
						"kind": "NnfNodeStorage", "name": fmt.Sprintf("default-%s-%d-gfs2-0", j.Name, directive), "namespace": n.Rabbit,
					}, "data": 3,
				}},
			}}},
		}
		n.Apply(cm)
		n.write("ClientMount", where, cm.Name(), "/status",
			lab.Object{"allReady": true, "mounts": []any{map[string]any{"state": "mounted", "ready": true}}})
	}
}

// namespaceOf is where a movement is, by its name.
func (n *Compute) namespaceOf(uid string) string {
	if strings.HasPrefix(uid, "nnf-dm-node-") {
		return n.Rabbit
	}
	return "nnf-dm-system"
}
