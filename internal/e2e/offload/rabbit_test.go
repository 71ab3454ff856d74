package offload

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// realRabbit is the name of the rabbit that copies.
const realRabbit = "rabbit-real"

// shelf is where the rabbit's file systems are on this machine, storage and
// global.
var shelf string

// startRabbit starts the stand-in that copies, which takes everything that it
// finds: what the scenes before have left is deleted first.
func startRabbit(t *testing.T, s *world.World) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Namespace(realRabbit)
	_, err := s.Cluster.Do(s.Context(patience), http.MethodDelete, lab.Path("NnfDataMovement", "nnf-dm-system", ""), "", nil)
	must(err)
	shelf = s.Files
	r, err := s.Lab.StartRabbit(s.Cluster, realRabbit, map[string]string{
		"/mnt/nnf": filepath.Join(shelf, "storage"), global: filepath.Join(shelf, "global"),
	}, "--namespace", "nnf-dm-system", "--any-storage", "--fault", "*/slow/* rate=64k", "--fault", "*/broken/* exit=3")
	must(err)
	t.Cleanup(func() { must(r.Stop()) })
}

// onShelf sets up a scene whose copies are really made.
func (s *env) onShelf() {
	s.t.Helper()
	s.Rabbit = realRabbit
	s.usual()
	s.makeDirectory("global/"+s.job, alice)
}

// file puts a file of alice's into the scene's storage, and returns its path on
// the compute.
func (s *env) file(name string, size int) string {
	s.t.Helper()
	storage := strings.TrimPrefix(s.onRabbit, "/mnt/nnf/")
	s.makeDirectory(filepath.Join("storage", storage, filepath.Dir(name)), alice)
	path := filepath.Join(shelf, "storage", storage, name)
	s.must(os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o644))
	s.must(os.Chown(path, int(alice.uid), int(alice.gid)))
	return s.path + "/" + name
}

func (s *env) makeDirectory(name string, of caller) {
	s.t.Helper()
	path := filepath.Join(shelf, name)
	s.must(os.MkdirAll(path, 0o755))
	s.must(os.Chown(path, int(of.uid), int(of.gid)))
}

// target is alice's directory on the global file system.
func (s *env) target() string { return global + "/" + s.job + "/" }
