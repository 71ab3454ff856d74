package world

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// The rabbit does a movement of the job, with a fault while there is one.
func TestJob(t *testing.T) {
	w := New(t)
	w.Site()
	uid := os.Getuid()
	j := w.Job("job-"+w.Node, uid, 0)
	for node, path := range map[string]string{w.Node: j.Mount(0), w.Rabbit: j.OnRabbit(0)} {
		o, err := w.Cluster.Get(t.Context(), "ClientMount", node, "default-"+j.Name+"-0")
		if err != nil || !o.Ready("mounted") || o.At("spec", "mounts", 0, "mountPath") != path || o.At("metadata", "labels", api.LabelWorkflowName) != j.Name {
			t.Errorf("%v: %v", o, err)
		}
	}
	from, to := filepath.Join(w.Files, "from"), filepath.Join(w.Files, "to")
	for _, dir := range []string{from, to} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(from, "f"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := w.StartRabbit(map[string]string{j.OnRabbit(0): from, Global: to})
	movement := func(name string) string {
		w.Apply(lab.Object{
			"apiVersion": nnf, "kind": "NnfDataMovement",
			"metadata": map[string]any{"name": name, "namespace": w.Rabbit},
			"spec": map[string]any{
				"source":      map[string]any{"path": j.OnRabbit(0) + "/f", "storageReference": map[string]any{"kind": "NnfNodeStorage", "name": "x", "namespace": w.Rabbit}},
				"destination": map[string]any{"path": Global + "/" + name + "/"}, "userId": uid, "groupId": uid,
				"profileReference": map[string]any{"kind": "NnfDataMovementProfile", "name": "default", "namespace": "nnf-system"},
			},
		})
		o, err := w.Cluster.WaitFor(w.Context(w.Patience), "NnfDataMovement", w.Rabbit, name, func(o lab.Object) bool { return o.String("status", "state") == "Finished" })
		if err != nil {
			t.Fatal(err)
		}
		return o.String("status", "status")
	}
	if err := r.Faults("*/bad invalid=as-told"); err != nil {
		t.Fatal(err)
	}
	if got := movement("bad"); got != "Invalid" {
		t.Errorf("with a fault: %s", got)
	}
	if err := r.Faults(); err != nil {
		t.Fatal(err)
	}
	if got := movement("good"); got != "Success" {
		t.Errorf("without one: %s", got)
	}
	found := ""
	_ = filepath.Walk(to, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Name() == "f" {
			found = path
		}
		return err
	})
	if data, err := os.ReadFile(found); string(data) != "content" || err != nil {
		t.Errorf("%q: %q, %v", found, data, err)
	}
	for range 2 {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	w.NothingLeft()
}
