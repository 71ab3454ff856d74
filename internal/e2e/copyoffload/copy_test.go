// Package copyoffload plays the main scene of nnf-dm: a job's client copies a
// directory tree from rabbit storage to a global file system, through the real
// daemon with its real account, a real API server and a stand-in for the rabbit
// that really copies.
package copyoffload

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

func TestMain(m *testing.M) { os.Exit(stage.Main(m)) }

const (
	rabbit   = "rabbit-01"
	workflow = "copyjob"
	mount    = "/mnt/nnf/" + lab.WorkflowUID + "-0"
	onRabbit = mount + "/" + rabbit + "-3"
	global   = "/lus/global"
)

// objects makes what the rabbit software has made by the time a job runs.
func objects(s *stage.Stage) {
	labels := map[string]any{
		api.LabelWorkflowName: workflow, api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: lab.WorkflowUID,
		api.LabelDirectiveIndex: "0", api.LabelJobID: "f9Tk",
	}
	clientMount := func(name, namespace, path string) lab.Object {
		return lab.Object{
			"apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "ClientMount",
			"metadata": map[string]any{"name": name, "namespace": namespace, "labels": labels},
			"spec": map[string]any{"node": namespace, "desiredState": "mounted", "mounts": []any{map[string]any{
				"mountPath": path, "type": "gfs2", "targetType": "directory", "options": "", "setPermissions": false,
				"device": map[string]any{"type": "reference", "deviceReference": map[string]any{
					"objectReference": map[string]any{"kind": "NnfNodeStorage", "name": "default-copyjob-0-gfs2-0", "namespace": rabbit}, "data": 3,
				}},
			}}},
		}
	}
	s.Apply(lab.Object{
		"apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "SystemConfiguration",
		"metadata": map[string]any{"name": "default", "namespace": "default"},
		"spec": map[string]any{"storageNodes": []any{map[string]any{
			"type": "Rabbit", "name": rabbit, "computesAccess": []any{map[string]any{"name": s.Node, "index": 0}},
		}}},
	})
	s.Apply(lab.Object{
		"apiVersion": "lus.cray.hpe.com/v1beta1", "kind": "LustreFileSystem",
		"metadata": map[string]any{"name": "global", "namespace": "default"},
		"spec":     map[string]any{"name": "global", "mgsNids": "10.1.1.1@tcp", "mountRoot": global},
	})
	s.Apply(lab.Object{
		"apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "Workflow",
		"metadata": map[string]any{"name": workflow, "namespace": "default"},
		"spec": map[string]any{
			"desiredState": "PreRun", "wlmID": "5f239bd8-30db-450b-8c2c-a1a7c8631a1a", "jobID": "f9Tk",
			"userID": 1001, "groupID": 1001, "dwDirectives": []any{},
		},
		"status": map[string]any{"state": "PreRun", "status": "Completed", "ready": true},
	})
	for _, cm := range []lab.Object{clientMount("copyjob-computes", s.Node, mount), clientMount("copyjob-rabbit", rabbit, onRabbit)} {
		s.Apply(cm)
		path := lab.Path("ClientMount", cm.Namespace(), cm.Name()) + "/status"
		status := map[string]any{"status": map[string]any{"allReady": true, "mounts": []any{map[string]any{"state": "mounted", "ready": true}}}}
		if _, err := s.Cluster.PatchPath(s.Context(time.Minute), path, "application/merge-patch+json", status); err != nil {
			panic(err)
		}
	}
}

// startRabbit starts the stand-in, with the paths of the rabbit below dir.
func startRabbit(t *testing.T, s *stage.Stage, dir string) {
	t.Helper()
	program := os.Getenv("DEVCLUSTER")
	if program == "" {
		program = filepath.Join(stage.Root(t), "bin", "devcluster")
	}
	cmd := exec.Command(program, "rabbit", "--dir", s.Cluster.Dir, "--namespace", rabbit, "--stdin",
		"--map", onRabbit+"="+filepath.Join(dir, rabbit+"-3"), "--map", global+"="+filepath.Join(dir, "global"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Log("rabbit: ", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready ") {
		t.Fatalf("the rabbit is not ready: %q %v", line, err)
	}
}

func client(t *testing.T, socket string) pb.DataMoverClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pb.NewDataMoverClient(conn)
}

func TestCopy(t *testing.T) {
	s := stage.New(t)
	objects(s)
	dir := t.TempDir()
	source, target := filepath.Join(dir, rabbit+"-3", "out"), filepath.Join(dir, "global", "alice")
	for _, d := range []string{source, target} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(source, "result"), []byte("forty-two"), 0o644); err != nil {
		t.Fatal(err)
	}
	for p := dir; p != "/"; p = filepath.Dir(p) { // the copy runs as the workflow's user
		_ = os.Chmod(p, 0o755)
	}
	if err := os.Chown(target, 1001, 1001); err != nil {
		t.Fatal(err)
	}
	startRabbit(t, s, dir)

	socket := filepath.Join(s.Lab.Dir, "nnf-dm.sock")
	flags := s.Flags("", "")
	args := []string{"--socket=" + socket}
	for _, f := range flags {
		if strings.HasPrefix(f, "--runtime-directory") {
			continue
		}
		args = append(args, strings.Replace(f, "/clientmountd/service.", "/nnf-dm/service.", 1))
	}
	d, err := s.StartDaemon(lab.DaemonOptions{Binary: filepath.Join(stage.Root(t), "bin", "nnf-dm"), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Kill9()
		if t.Failed() {
			for _, line := range d.Log() {
				t.Log("daemon: ", line.Text)
			}
		}
	})
	if _, err := d.WaitReady(s.Context(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := client(t, socket)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w := &pb.DataMovementWorkflow{Name: workflow, Namespace: "default"}

	created, err := c.Create(ctx, &pb.DataMovementCreateRequest{Workflow: w, Source: mount + "/out/", Destination: global + "/alice/", Slots: -1, MaxSlots: -1})
	if err != nil || created.Status != pb.DataMovementCreateResponse_SUCCESS {
		t.Fatalf("create: %v %v", created, err)
	}
	status, err := c.Status(ctx, &pb.DataMovementStatusRequest{Workflow: w, Uid: created.Uid, MaxWaitTime: 90})
	if err != nil || status.State != pb.DataMovementStatusResponse_COMPLETED || status.Status != pb.DataMovementStatusResponse_SUCCESS {
		t.Fatalf("status: %v %v", status, err)
	}
	found := ""
	_ = filepath.Walk(filepath.Join(dir, "global"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Name() == "result" {
			found = path
			if st := info.Sys().(*syscall.Stat_t); st.Uid != 1001 {
				t.Errorf("%s belongs to uid %d, not to the workflow's user", path, st.Uid)
			}
		}
		return nil
	})
	if data, err := os.ReadFile(found); string(data) != "forty-two" || err != nil {
		t.Errorf("copied: %q %v", data, err)
	}
	list, err := c.List(ctx, &pb.DataMovementListRequest{Workflow: w})
	if err != nil || len(list.Uids) != 1 || list.Uids[0] != created.Uid {
		t.Errorf("list: %v %v", list, err)
	}
	gone, err := c.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: w, Uid: created.Uid})
	if err != nil || gone.Status != pb.DataMovementDeleteResponse_SUCCESS {
		t.Errorf("delete: %v %v", gone, err)
	}

	// What could break out of its word on the rabbit does not get there.
	for _, bad := range []string{mount + "/$(reboot)", mount + "/../../etc/shadow", mount + "/a;b"} {
		r, err := c.Create(ctx, &pb.DataMovementCreateRequest{Workflow: w, Source: bad, Destination: global + "/alice/", Slots: -1, MaxSlots: -1})
		if err != nil || r.Status != pb.DataMovementCreateResponse_INVALID {
			t.Errorf("source %q: %v %v", bad, r, err)
		}
	}
	if err := d.Term(); err != nil {
		t.Fatal(err)
	}
	if code, err := d.Wait(s.Context(30 * time.Second)); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}
