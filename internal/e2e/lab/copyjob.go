package lab

import (
	"context"
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

// CopyJob is a job on one compute whose processes copy from a gfs2 file system
// to a global one. Its methods build what the rabbit software has made by the
// time the job runs (contract nnf-dm.md 4.2).
type CopyJob struct {
	Node     string // the compute
	Workflow string // in namespace default; its uid in labels is WorkflowUID
	UID, GID int    // whose job it is
	Mount    string // where the compute sees the storage
	Global   string // root of the global file system
}

// CopyRabbit is the rabbit that serves the computes of copy jobs.
const CopyRabbit = "rabbit-01"

// OnRabbit is where the rabbit sees Mount.
func (j CopyJob) OnRabbit() string { return j.Mount + "/" + CopyRabbit + "-0" }

// Apply makes everything but the compute's own ClientMount.
func (j CopyJob) Apply(ctx context.Context, c *Client) error {
	dws := api.GroupDWS + "/" + api.VersionsDWS[0]
	for _, o := range []Object{
		{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": j.Node}},
		{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": CopyRabbit}},
		{
			"apiVersion": dws, "kind": "SystemConfiguration", "metadata": map[string]any{"name": "default", "namespace": "default"},
			"spec": map[string]any{"storageNodes": []any{map[string]any{
				"type": "Rabbit", "name": CopyRabbit, "computesAccess": []any{map[string]any{"name": j.Node, "index": 0}},
			}}},
		},
		{
			"apiVersion": api.GroupLUS + "/v1beta1", "kind": "LustreFileSystem", "metadata": map[string]any{"name": "global", "namespace": "default"},
			"spec": map[string]any{"name": "global", "mgsNids": "10.1.1.1@tcp", "mountRoot": j.Global},
		},
		{
			"apiVersion": api.GroupNNF + "/" + api.VersionsNNF[0], "kind": "NnfDataMovementProfile",
			"metadata": map[string]any{"name": "default", "namespace": "nnf-system"},
			"data": map[string]any{
				"default": true, "progressIntervalSeconds": 1, "createDestDir": true,
				"command": "mpirun --allow-run-as-root --hostfile $HOSTFILE dcp --progress 1 --uid $UID --gid $GID $SRC $DEST",
			},
		},
		{
			"apiVersion": dws, "kind": "Workflow", "metadata": map[string]any{"name": j.Workflow, "namespace": "default"},
			"spec": map[string]any{
				"desiredState": "PreRun", "wlmID": "5f239bd8-30db-450b-8c2c-a1a7c8631a1a", "jobID": "f9Tk",
				"userID": j.UID, "groupID": j.GID, "dwDirectives": []any{},
			},
			"status": map[string]any{"state": "PreRun", "status": "Completed", "ready": true},
		},
	} {
		if _, err := c.Apply(ctx, o); err != nil {
			return fmt.Errorf("%s %s: %w", o.String("kind"), o.Name(), err)
		}
	}
	return j.Mounted(ctx, c, j.ClientMount(CopyRabbit, j.OnRabbit(), ClientMountSpec{}))
}

// ClientMount is the job's on the compute, or on its rabbit.
func (j CopyJob) ClientMount(node, path string, s ClientMountSpec) Object {
	s.Workflow, s.Mounts = j.Workflow, []MountSpec{{Path: path, Type: "gfs2", UID: j.UID, GID: j.GID, Own: true}}
	return ClientMount(j.Workflow+"-0", node, s)
}

// Mounted makes the ClientMount with a status that says that it is mounted, for
// a node without clientmountd.
func (j CopyJob) Mounted(ctx context.Context, c *Client, o Object) error {
	if _, err := c.Apply(ctx, o); err != nil {
		return fmt.Errorf("%s %s: %w", o.String("kind"), o.Name(), err)
	}
	status := Object{"status": map[string]any{"allReady": true, "mounts": []any{map[string]any{"state": "mounted", "ready": true}}}}
	_, err := c.PatchPath(ctx, Path("ClientMount", o.Namespace(), o.Name())+"/status", mergePatch, status)
	return err
}
