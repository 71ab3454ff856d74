package abuse

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// TestLinks: links that lead out of the mount lead nowhere, for the rabbit
// copies as the user: what she cannot read there does not come back.
func TestLinks(t *testing.T) {
	t.Parallel()
	s := newEnv(t, "")
	const secret = "the secret of root"
	storage, global, closed := filepath.Join(s.Files, "storage"), filepath.Join(s.Files, "global"), filepath.Join(s.Files, "closed")
	s.tree(closed, 0o700, 0, map[string]string{"secret": secret})
	s.tree(storage, 0o755, alice, map[string]string{"mine": "alice's own"})
	s.tree(global, 0o755, alice, nil)
	for link, target := range map[string]string{
		filepath.Join(storage, "leak"): filepath.Join(closed, "secret"),
		filepath.Join(storage, "door"): closed,
		filepath.Join(storage, "root"): "/",
		filepath.Join(global, "trap"):  closed,
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	s.StartRabbit(map[string]string{s.hers.OnRabbit(0): storage, world.Global: global})
	for _, c := range []struct {
		source, destination string
		works               bool
	}{
		{"/", "/tree/", true}, // the links among it as links
		{"/mine", "/one", true},
		{"/leak", "/leaked", false},
		{"/door/secret", "/stolen", false},
		{"/door/", "/all/", false},
		{"/root" + closed + "/secret", "/far", false},
		{"/mine", "/trap/planted", false},
	} {
		uid := s.alice.create(s.hers.Request(c.source, c.destination))
		st, err := s.alice.v1().Status(t.Context(), &pb.DataMovementStatusRequest{Uid: uid, MaxWaitTime: 40})
		if err != nil || st.State != pb.DataMovementStatusResponse_COMPLETED || c.works && st.Status != pb.DataMovementStatusResponse_SUCCESS {
			t.Errorf("%s to %s: %v %v", c.source, c.destination, st, err)
		}
	}
	copied := 0
	err := filepath.WalkDir(global, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), secret) {
			t.Errorf("%s has what alice cannot read", path)
		}
		copied++
		return err
	})
	if err != nil || copied != 2 {
		t.Errorf("%d files were copied, want 2: %v", copied, err)
	}
	if left, err := os.ReadDir(closed); err != nil || len(left) != 1 {
		t.Errorf("something was put where alice cannot write: %v %v", left, err)
	}
	s.Stop(s.daemon)
}

// tree makes a folder of a user with files in it.
func (s *env) tree(dir string, mode os.FileMode, uid int, files map[string]string) {
	s.t.Helper()
	if err := os.Mkdir(dir, mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		s.t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
		if err := os.Chown(path, uid, uid); err != nil {
			s.t.Fatal(err)
		}
	}
}
