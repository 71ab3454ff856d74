// Package copyjob puts jobs on a stage that copy through nnf-dm: their
// workflows, their file systems as the compute and the rabbit see them, and the
// daemon itself with the account that an installation gives it.
//
// It must not know what a scene is about, nor how the daemon does its work.
package copyjob

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// Global is where the global file system is mounted, to which jobs copy.
const Global = "/lus/global"

// Command is what the default profile makes a rabbit run, as administrators
// write it: what the user chooses comes in front of the ids.
const Command = "ulimit -n 2048 && mpirun --allow-run-as-root --hostfile $HOSTFILE dcp --progress 1 --uid $UID --gid $GID $SRC $DEST"

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 40 * time.Second

// Compute is a compute with a rabbit of its own.
type Compute struct {
	*stage.Stage
	Rabbit string // its name and namespace
	Socket string // of the daemon
	Token  string // the daemon's token file
	Dir    string // files of the scene

	t testing.TB
}

// On makes what an administrator has set up before jobs run: the rabbit, the
// SystemConfiguration, which is called like the node, and a global file system.
func On(t testing.TB, s *stage.Stage) *Compute {
	t.Helper()
	n := &Compute{
		Stage: s, t: t, Rabbit: strings.Replace(s.Node, "compute", "rabbit", 1),
		Dir:   filepath.Join(s.Dir, "copy-"+s.Node),
		Token: filepath.Join(s.Cluster.Dir, "nnf-dm", "service.token"),
	}
	n.Socket = filepath.Join(n.Dir, "nnf-dm.sock")
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The socket is for other users, too; the files beside it are not.
	if err := os.Chmod(s.Dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": n.Rabbit}})
	s.Apply(lab.Object{
		"apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "SystemConfiguration",
		"metadata": map[string]any{"name": s.Node, "namespace": "default"},
		"spec": map[string]any{"storageNodes": []any{map[string]any{
			"type": "Rabbit", "name": n.Rabbit, "computesAccess": []any{map[string]any{"name": s.Node, "index": 0}},
		}}},
	})
	s.Apply(lab.Object{
		"apiVersion": "lus.cray.hpe.com/v1beta1", "kind": "LustreFileSystem",
		"metadata": map[string]any{"name": "global", "namespace": "default"},
		"spec":     map[string]any{"name": "global", "mgsNids": "10.1.1.1@tcp", "mountRoot": Global},
	})
	s.Apply(lab.Object{
		"apiVersion": "nnf.cray.hpe.com/v1alpha11", "kind": "NnfDataMovementProfile",
		"metadata": map[string]any{"name": "default", "namespace": "nnf-system"},
		"data":     map[string]any{"default": true, "command": Command, "progressIntervalSeconds": 1, "createDestDir": true},
	})
	return n
}

// For returns the node for a subtest: what fails then fails there.
func (n *Compute) For(t testing.TB) *Compute {
	c := *n
	c.t, c.Stage = t, n.Stage.For(t)
	return &c
}
