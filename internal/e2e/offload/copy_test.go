package offload

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var copyBehaviours = []behaviour{
	{"a tree is copied as the workflow's user", "7/finalizer 7/running 7/success 9.3 9.6", both, copyTree},
	{"a copy reports progress, and is cancelled", "7/running 7/progress 7/cancel-running", both, copyCancelled},
	{"a copy that fails", "7/failure", both, copyFails},
	{"a copy that cannot start", "7/invalid 9.10", both, copyInvalid},
	{"a dry run", "7/success", both, copyDry},
	{"cancelled before the rabbit has started it", "7/cancel-before 7/delete-before 9.13", both, copyNever},
}

// find returns the files with that name on the global file system.
func (s *env) find(name string) (paths []string) {
	s.t.Helper()
	s.Must(filepath.WalkDir(filepath.Join(rabbitRoot, "global", s.job), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

func copyTree(s *env) {
	s.useRabbit()
	s.file("out/deep/result", 42)
	secret := filepath.Join(rabbitRoot, "secret-"+s.job)
	s.Must(os.WriteFile(secret, []byte("of root"), 0o600))
	s.Must(os.Symlink(secret, filepath.Join(rabbitRoot, "storage", strings.TrimPrefix(s.onRabbit, "/mnt/nnf/"), "out", "link")))
	uid := s.create(to(s.target()), func(w *createRequest) { w.StoreStdout = true })
	r := s.status(uid, 3600)
	if r.State != completed || r.Status != success || r.StartTime == "" || r.EndTime == "" || !strings.Contains(r.CommandStatus.GetCommand(), "dcp") || r.Message == "" {
		s.t.Fatalf("%v", r)
	}
	found := s.find("result")
	if len(found) != 1 {
		s.t.Fatalf("copied to %q", found)
	}
	info, err := os.Stat(found[0])
	s.Must(err)
	if st := info.Sys().(*syscall.Stat_t); info.Size() != 42 || st.Uid != uint32(alice.uid) || st.Gid != uint32(alice.gid) {
		s.t.Errorf("%d bytes of user %d, group %d", info.Size(), st.Uid, st.Gid)
	}
	for _, link := range s.find("link") {
		if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
			s.t.Errorf("the target of a link was copied: %v, %v", info, err)
		}
	}
	s.deletes(uid, deleteOK)
	s.Must(s.Cluster.WaitGone(s.ctx(), "NnfDataMovement", s.where(), uid))
}

func copyCancelled(s *env) {
	s.useRabbit()
	source := s.file("slow/much", 8<<20)
	uid := s.create(from(source), to(s.target()))
	wait.Within(s.t, patience, "reported progress", func() bool {
		r := s.status(uid, 0)
		return r.State == isRunning && r.CommandStatus.GetElapsedTime() != "" && r.CommandStatus.GetLastMessage() != "" && r.CommandStatus.GetLastMessageTime() != ""
	})
	s.cancels(uid, cancelOK)
	if r := s.status(uid, -1); r.State != completed || r.Status != cancelled {
		s.t.Errorf("%v", r)
	}
	s.deletes(uid, deleteOK)
}

func copyFails(s *env) {
	s.useRabbit()
	uid := s.create(from(s.file("broken/one", 1000)), to(s.target()))
	if r := s.status(uid, 3600); r.State != completed || r.Status != failed || !strings.Contains(r.Message, "exit status 3") {
		s.t.Errorf("%v", r)
	}
	s.deletes(uid, deleteOK)
}

// A source that does not exist: the rabbit sets no end time.
func copyInvalid(s *env) {
	s.useRabbit()
	uid := s.create(from(s.path+"/none"), to(s.target()))
	if r := s.status(uid, 3600); r.State != completed || r.Status != invalid || r.EndTime != "" || r.Message == "" {
		s.t.Errorf("%v", r)
	}
	w, err := s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{uid}})
	if err != nil || w.Movements[0].Result != invalid2 {
		s.t.Errorf("%v, %v", w, err)
	}
	s.deletes(uid, deleteOK)
}

func copyDry(s *env) {
	s.useRabbit()
	uid := s.create(from(s.file("out/result", 42)), to(s.target()), func(w *createRequest) { w.Dryrun = true })
	if r := s.status(uid, 3600); r.State != completed || r.Status != success {
		s.t.Errorf("%v", r)
	}
	if found := s.find("result"); len(found) != 0 {
		s.t.Errorf("copied: %q", found)
	}
}

// If a client cancels immediately, the rabbit may have started the copy or not. In both
// cases the movement ends and can be deleted.
func copyNever(s *env) {
	s.useRabbit()
	source := s.file("slow/much", 1<<20)
	for range 5 {
		uid := s.create(from(source), to(s.target()))
		s.cancels(uid, cancelOK)
		r, err := s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: -1})
		if err != nil || r.State != completed || r.Status != cancelled {
			s.t.Errorf("%v, %v", r, err)
		}
		s.deletes(uid, deleteOK)
		s.Must(s.Cluster.WaitGone(s.ctx(), "NnfDataMovement", s.where(), uid))
	}
}

// realRabbit is the name of the rabbit that copies.
const realRabbit = "rabbit-real"

// rabbitRoot is the directory with the rabbit's storage and global file systems.
var rabbitRoot string

// startRabbit starts a fake rabbit that copies. It processes all existing movements, so the
// movements of earlier tests are deleted first.
func startRabbit(t *testing.T, s *fixture.Fixture) {
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
	rabbitRoot = s.Files
	r, err := s.Lab.StartRabbit(s.Cluster, realRabbit, map[string]string{
		"/mnt/nnf": filepath.Join(rabbitRoot, "storage"), global: filepath.Join(rabbitRoot, "global"),
	}, "--namespace", "nnf-dm-system", "--any-storage", "--fault", "*/slow/* rate=64k", "--fault", "*/broken/* exit=3")
	must(err)
	t.Cleanup(func() { must(r.Stop()) })
}

// useRabbit sets up a test with real copies.
func (s *env) useRabbit() {
	s.t.Helper()
	s.Rabbit = realRabbit
	s.usual()
	s.makeDirectory("global/"+s.job, alice)
}

// file creates a file of alice in the test's storage, and returns its path on the compute.
func (s *env) file(name string, size int) string {
	s.t.Helper()
	storage := strings.TrimPrefix(s.onRabbit, "/mnt/nnf/")
	s.makeDirectory(filepath.Join("storage", storage, filepath.Dir(name)), alice)
	path := filepath.Join(rabbitRoot, "storage", storage, name)
	s.Must(os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o644))
	s.Must(os.Chown(path, alice.uid, alice.gid))
	return s.path + "/" + name
}

func (s *env) makeDirectory(name string, of caller) {
	s.t.Helper()
	path := filepath.Join(rabbitRoot, name)
	s.Must(os.MkdirAll(path, 0o755))
	s.Must(os.Chown(path, of.uid, of.gid))
}

// target is alice's directory on the global file system.
func (s *env) target() string { return global + "/" + s.job + "/" }
