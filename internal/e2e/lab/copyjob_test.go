package lab

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

// A shell plays the daemon that gets a socket handed over: the number in
// LISTEN_PID is its own, and descriptor 3 is the socket.
func TestListen(t *testing.T) {
	l := newLab(t)
	path := filepath.Join(l.Dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, err := l.StartDaemon(DaemonOptions{
		Binary: "/bin/sh", Listen: file,
		Args: []string{"-c", `echo "$LISTEN_FDS $LISTEN_PID $$ $1 $(readlink /proc/$$/fd/3)"`, "-", "a b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.WaitLog(soon(t), func(LogLine) bool { return true })
	pid := strconv.Itoa(d.PID)
	if want := "1 " + pid + " " + pid + " a b socket:["; err != nil || !strings.HasPrefix(line.Text, want) {
		t.Errorf("%q, want %q: %v", line.Text, want, err)
	}
	if code, err := d.Wait(soon(t)); code != 0 || err != nil {
		t.Error(code, err)
	}
}

func TestRun(t *testing.T) {
	l := newLab(t)
	exit := (*exec.ExitError)(nil)
	if err := l.Run(exec.Command("/bin/sh", "-c", "exit 3")); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
	if err := l.Run(exec.Command(filepath.Join(l.Dir, "nothing"))); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	noLeftovers(t, l)
}

// The rabbit does a movement of the job, with a fault while there is one.
func TestCopyJob(t *testing.T) {
	l := newLab(t)
	if _, err := findBinary("DEVCLUSTER", "devcluster", "devcluster"); err != nil {
		t.Skip("no API server: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c, err := l.StartCluster(ctx, ClusterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	j := CopyJob{Node: "compute-1", Workflow: "job", UID: uid, GID: uid, Mount: "/mnt/nnf/U-0", Global: "/lus/global"}
	if err := j.Apply(ctx, c.Client); err != nil {
		t.Fatal(err)
	}
	if err := j.Mounted(ctx, c.Client, j.ClientMount(j.Node, j.Mount, ClientMountSpec{})); err != nil {
		t.Fatal(err)
	}
	for node, path := range map[string]string{j.Node: j.Mount, CopyRabbit: j.OnRabbit()} {
		o, err := c.Get(ctx, "ClientMount", node, "job-0")
		if err != nil || !o.Ready("mounted") || o.At("spec", "mounts", 0, "mountPath") != path || o.At("metadata", "labels", api.LabelWorkflowName) != "job" {
			t.Errorf("%v: %v", o, err)
		}
	}
	if l.Features.UserNamespace {
		change := Object{"data": map[string]any{"setprivCommand": "env"}}
		if _, err := c.Patch(ctx, "NnfDataMovementProfile", "nnf-system", "default", change); err != nil {
			t.Fatal(err)
		}
	}

	from, to := filepath.Join(l.Dir, "from"), filepath.Join(l.Dir, "to")
	for _, dir := range []string{from, to} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(from, "f"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := l.StartRabbit(c, map[string]string{j.OnRabbit(): from, j.Global: to})
	if err != nil {
		t.Fatal(err)
	}
	movement := func(name string) string {
		o := Object{
			"apiVersion": api.GroupNNF + "/" + api.VersionsNNF[0], "kind": "NnfDataMovement",
			"metadata": map[string]any{"name": name, "namespace": CopyRabbit},
			"spec": map[string]any{
				"source":      map[string]any{"path": j.OnRabbit() + "/f", "storageReference": map[string]any{"kind": "NnfNodeStorage", "name": "x", "namespace": CopyRabbit}},
				"destination": map[string]any{"path": j.Global + "/" + name + "/"}, "userId": uid, "groupId": uid,
				"profileReference": map[string]any{"kind": "NnfDataMovementProfile", "name": "default", "namespace": "nnf-system"},
			},
		}
		if _, err := c.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
		o, err := c.WaitFor(ctx, "NnfDataMovement", CopyRabbit, name, func(o Object) bool { return o.String("status", "state") == "Finished" })
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
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	noLeftovers(t, l)
}
