package offload

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// realRabbit is the name of the rabbit that copies.
const realRabbit = "rabbit-real"

// shelf is where the rabbit's file systems are on this machine, storage and
// global.
var shelf string

// startRabbit starts the stand-in that copies, which takes everything that it
// finds: what the scenes before have left is deleted first.
func startRabbit(t *testing.T, s *stage.Stage) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": fields{"name": realRabbit}})
	_, err := s.Cluster.Do(s.Context(patience), http.MethodDelete, lab.Path("NnfDataMovement", "nnf-dm-system", ""), "", nil)
	must(err)
	shelf = openDirectory(t, s)
	program := os.Getenv("DEVCLUSTER")
	if program == "" {
		program = filepath.Join(stage.Root(t), "bin", "devcluster")
	}
	// It ends with its standard input. A parent-death signal would come when the
	// thread ends that has started it, as ours do.
	cmd := exec.Command(program, "rabbit", "--dir", s.Cluster.Dir, "--namespace", realRabbit, "--namespace", "nnf-dm-system", "--any-storage", "--stdin",
		"--fault", "*/slow/* rate=64k", "--fault", "*/broken/* exit=3",
		"--map", "/mnt/nnf="+filepath.Join(shelf, "storage"), "--map", global+"="+filepath.Join(shelf, "global"))
	stdin, err := cmd.StdinPipe()
	must(err)
	stdout, err := cmd.StdoutPipe()
	must(err)
	cmd.Stderr = os.Stderr
	must(cmd.Start())
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

// onShelf sets up a scene whose copies are really made.
func (s *scene) onShelf() {
	s.t.Helper()
	s.rabbit = realRabbit
	s.usual()
	s.makeDirectory("global/"+s.job, alice)
}

// file puts a file of alice's into the scene's storage, and returns its path on
// the compute.
func (s *scene) file(name string, size int) string {
	s.t.Helper()
	storage := strings.TrimPrefix(s.onRabbit, "/mnt/nnf/")
	s.makeDirectory(filepath.Join("storage", storage, filepath.Dir(name)), alice)
	path := filepath.Join(shelf, "storage", storage, name)
	s.must(os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o644))
	s.must(os.Chown(path, int(alice.uid), int(alice.gid)))
	return s.path + "/" + name
}

func (s *scene) makeDirectory(name string, of caller) {
	s.t.Helper()
	path := filepath.Join(shelf, name)
	s.must(os.MkdirAll(path, 0o755))
	s.must(os.Chown(path, int(of.uid), int(of.gid)))
}

// target is alice's directory on the global file system.
func (s *scene) target() string { return global + "/" + s.job + "/" }
