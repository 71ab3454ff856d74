package world

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Global is where the global file system is mounted, to which jobs copy.
const Global = "/lus/global"

// allocation is the index of the compute's storage on its rabbit.
const allocation = 3

// Site makes what an administrator has set up before jobs run: the rabbit, the
// SystemConfiguration, a global file system and a default profile.
func (w *World) Site() {
	w.tb.Helper()
	w.Namespace(w.Rabbit)
	w.Apply(SystemConfiguration(w.System, []any{StorageNode(w.Rabbit, w.Node)}), FileSystem("global", Global), MovementProfile("default", true))
}

// Job is a workflow in PreRun whose gfs2 file systems are mounted.
type Job struct {
	Name        string // of the workflow, in namespace default
	UID         string // of the workflow, which names the mounts
	User, Group int

	world *World
}

// Job makes the workflow of a user, and a file system for each directive, mounted on
// the compute and on its rabbit.
func (w *World) Job(name string, user int, directives ...int) *Job {
	w.tb.Helper()
	made, err := w.Cluster.Apply(w.Context(w.Patience), Workflow(name, user))
	w.Must(err)
	j := &Job{Name: name, UID: made.String("metadata", "uid"), User: user, Group: user, world: w}
	for _, d := range directives {
		w.Mounted(j.ClientMount(w.Node, d))
		w.Mounted(j.ClientMount(w.Rabbit, d))
	}
	return j
}

// Mount is where the compute sees the file system of a directive.
func (j *Job) Mount(directive int) string {
	return filepath.Join(j.world.MountBase, fmt.Sprintf("%s-%d", j.UID, directive))
}

// OnRabbit is where the rabbit sees it.
func (j *Job) OnRabbit(directive int) string {
	return fmt.Sprintf("%s/%s-%d", j.Mount(directive), j.world.Rabbit, allocation)
}

// ClientMount is that of a directive, on the compute or on its rabbit.
func (j *Job) ClientMount(node string, directive int) lab.Object {
	path := j.Mount(directive)
	if node == j.world.Rabbit {
		path = j.OnRabbit(directive)
	}
	return ClientMount(fmt.Sprintf("default-%s-%d", j.Name, directive), node, ClientMountSpec{
		Profile: j.world.Profile, OwnerUID: j.world.Owner, Directive: fmt.Sprint(directive), Workflow: j.Name, WorkflowUID: j.UID,
		Mounts: []MountSpec{{
			Path: path, Type: "gfs2", Device: "reference", Index: allocation, UID: j.User, GID: j.Group, Own: true,
			Storage: fmt.Sprintf("default-%s-%d-gfs2-0", j.Name, directive), Rabbit: j.world.Rabbit,
		}},
	})
}

// Mounted writes a ClientMount with a status that says that all of it is mounted,
// for a node without clientmountd.
func (w *World) Mounted(o lab.Object) {
	w.tb.Helper()
	w.Apply(o)
	w.Report(o, "mounted", true)
}

// Report writes the status that a clientmountd would.
func (w *World) Report(o lab.Object, state string, ready bool) {
	w.tb.Helper()
	list := []any{}
	for range o.At("spec", "mounts").([]any) {
		list = append(list, map[string]any{"state": state, "ready": ready})
	}
	w.SetStatus("ClientMount", o.Namespace(), o.Name(), lab.Object{"mounts": list, "allReady": ready})
}

// Ref names the workflow in a request.
func (j *Job) Ref() *pb.DataMovementWorkflow {
	return &pb.DataMovementWorkflow{Name: j.Name, Namespace: "default"}
}

// Request asks for a copy of a path of directive 0; everything else is left to the
// profile.
func (j *Job) Request(path, destination string) *pb.DataMovementCreateRequest {
	return &pb.DataMovementCreateRequest{
		Workflow: j.Ref(), Source: j.Mount(0) + path, Destination: Global + destination, Slots: -1, MaxSlots: -1,
	}
}

// Dial connects to nnf-dm as the test's own user. A daemon that is restarted is
// found again at once.
func (w *World) Dial() *grpc.ClientConn {
	w.tb.Helper()
	c, err := grpc.NewClient("unix://"+w.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 100 * time.Millisecond},
			MinConnectTimeout: w.Patience,
		}))
	w.Must(err)
	w.tb.Cleanup(func() { c.Close() })
	return c
}

// MovementNamespace is where a movement is, by its name.
func (w *World) MovementNamespace(uid string) string {
	if strings.HasPrefix(uid, "nnf-dm-node-") {
		return w.Rabbit
	}
	return "nnf-dm-system"
}

// Movement reads the object that a uid names, nil when there is none.
func (w *World) Movement(uid string) lab.Object {
	w.tb.Helper()
	o, err := w.Cluster.Get(w.Context(w.Patience), "NnfDataMovement", w.MovementNamespace(uid), uid)
	if err != nil && !lab.IsNotFound(err) {
		w.tb.Fatal(err)
	}
	return o
}

// Movements counts the objects with a label: those of this node with
// api.LabelInitiator.
func (w *World) Movements(label, value string) int {
	w.tb.Helper()
	query := "?labelSelector=" + url.QueryEscape(label+"="+value)
	list, err := w.Cluster.Do(w.Context(w.Patience), http.MethodGet, lab.Path("NnfDataMovement", "", "")+query, "", nil)
	w.Must(err)
	items, _ := list["items"].([]any)
	return len(items)
}

// Created counts the movements that this node has made.
func (w *World) Created() int { w.tb.Helper(); return w.Movements(api.LabelInitiator, w.Node) }

// Stamp is a time as the rabbit writes it.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// Runs writes what a rabbit writes when a movement's command has started.
func (w *World) Runs(uid string) {
	w.tb.Helper()
	w.SetMovement(uid, lab.Object{
		"state": "Running", "startTime": Stamp(time.Now()), "commandStatus": map[string]any{"command": "dcp", "progress": 7},
	})
}

// Ends writes what a rabbit writes when it has ended.
func (w *World) Ends(uid, status string) {
	w.tb.Helper()
	w.SetMovement(uid, lab.Object{"state": "Finished", "status": status, "startTime": Stamp(time.Now()), "endTime": Stamp(time.Now())})
}

// SetMovement merges into a movement's status as a rabbit does.
func (w *World) SetMovement(uid string, status lab.Object) {
	w.tb.Helper()
	w.SetStatus("NnfDataMovement", w.MovementNamespace(uid), uid, status)
}

// StartRabbit starts the stand-in for the node's rabbit, which really copies. The
// keys of directories are paths as the rabbit has them, the values where that is on
// this machine.
func (w *World) StartRabbit(directories map[string]string) *lab.Rabbit {
	w.tb.Helper()
	r, err := w.Lab.StartRabbit(w.Cluster, w.Rabbit, directories)
	w.Must(err)
	w.tb.Cleanup(func() {
		if err := r.Stop(); err != nil {
			w.tb.Error("the rabbit: ", err)
		}
	})
	return r
}
