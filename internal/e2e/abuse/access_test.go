package abuse

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// question is a call about a movement.
type question struct {
	method string
	body   func(uid string, w *pb.DataMovementWorkflow) proto.Message
}

// questions are all calls about one movement, in both versions.
var questions = []question{
	{"/datamovement.DataMover/Status", func(uid string, w *pb.DataMovementWorkflow) proto.Message {
		return &pb.DataMovementStatusRequest{Uid: uid, Workflow: w}
	}},
	{"/datamovement.DataMover/Status", func(uid string, w *pb.DataMovementWorkflow) proto.Message {
		return &pb.DataMovementStatusRequest{Uid: uid, Workflow: w, MaxWaitTime: 30}
	}},
	{"/datamovement.DataMover/Cancel", func(uid string, w *pb.DataMovementWorkflow) proto.Message {
		return &pb.DataMovementCancelRequest{Uid: uid, Workflow: w}
	}},
	{"/datamovement.DataMover/Delete", func(uid string, w *pb.DataMovementWorkflow) proto.Message {
		return &pb.DataMovementDeleteRequest{Uid: uid, Workflow: w}
	}},
	{"/datamovement.v2.DataMover/Wait", func(uid string, w *pb.DataMovementWorkflow) proto.Message {
		return &pb2.WaitRequest{Uids: []string{uid}, Workflow: second(w)}
	}},
	{"/datamovement.v2.DataMover/Cancel", func(uid string, w *pb.DataMovementWorkflow) proto.Message {
		return &pb2.CancelRequest{Uids: []string{uid}, Workflow: second(w)}
	}},
	{"/datamovement.v2.DataMover/Delete", func(uid string, w *pb.DataMovementWorkflow) proto.Message {
		return &pb2.DeleteRequest{Uids: []string{uid}, Workflow: second(w)}
	}},
}

func second(w *pb.DataMovementWorkflow) *pb2.Workflow {
	return &pb2.Workflow{Name: w.GetName(), Namespace: w.GetNamespace()}
}

// TestOtherUser: objects of other users are indistinguishable from missing ones: same bytes,
// same requests to the API server. The object is not changed, and there is one audit
// record.
func TestOtherUser(t *testing.T) {
	t.Parallel()
	s := newEnv(t, everyRecord)
	hers := s.alice.create(s.hers.Request("/out/", "/alice/"))
	s.Runs(hers)
	early := s.alice.create(s.hers.Request("/early/", "/alice/"))
	if c, err := s.alice.v1().Cancel(t.Context(), &pb.DataMovementCancelRequest{Uid: early}); err != nil || c.Status != pb.DataMovementCancelResponse_SUCCESS {
		t.Fatal(c, err)
	}
	copyIn := s.addMovement("nnf-dm-system", "copyin-"+s.Node, "copy_in")
	elsewhere := s.addMovement(s.Rabbit, "nnf-dm-node-"+s.Node, "compute-elsewhere")
	for _, target := range []struct {
		name     string
		uid      string
		by       *user
		workflow *pb.DataMovementWorkflow
	}{
		{"another user's", hers, s.bob, s.hers.Ref()},
		{"another user's, in the caller's workflow", hers, s.bob, s.his.Ref()},
		{"another user's, cancelled before its start", early, s.bob, s.hers.Ref()},
		{"the caller's, in another user's workflow", hers, s.alice, s.his.Ref()},
		{"copy_in of the caller's workflow", copyIn, s.alice, s.hers.Ref()},
		{"copy_in of another user's workflow", copyIn, s.bob, s.his.Ref()},
		{"the caller's, of another compute", elsewhere, s.alice, s.hers.Ref()},
	} {
		t.Run(strings.ReplaceAll(target.name, " ", "-"), func(t *testing.T) {
			missing := missingName(target.uid)
			before := s.Movement(target.uid).String("metadata", "resourceVersion")
			for _, q := range questions {
				// The first call starts the watch, which must not count.
				s.startWatches(t, target.uid, hers)
				var foreign, guessed answer
				// The daemon caches for two seconds which names do not exist for a user. If
				// that time passes between the two calls, they are repeated.
				for range 3 {
					foreign = s.ask(t, target.by, q, target.uid, target.workflow)
					guessed = s.ask(t, target.by, q, missing, target.workflow)
					if slices.Equal(foreign.requestsTo(target.uid), guessed.requestsTo(missing)) {
						break
					}
				}
				if !bytes.Equal(foreign.wire(target.uid), guessed.wire(missing)) {
					t.Errorf("%s: the responses differ:\n%q\n%q", q.method, foreign.wire(target.uid), guessed.wire(missing))
				}
				if a, b := foreign.requestsTo(target.uid), guessed.requestsTo(missing); !slices.Equal(a, b) {
					t.Errorf("%s: requests to the API server:\n%q for an existing one, and\n%q for a missing one", q.method, a, b)
				}
				foreign.recorded(t, 1, target.by, q.method, target.uid)
				guessed.recorded(t, 0, target.by, q.method, missing)
			}
			if now := s.Movement(target.uid).String("metadata", "resourceVersion"); now != before {
				t.Error("the object was changed")
			}
		})
	}
	t.Run("list", func(t *testing.T) { s.otherUserList(t) })
	t.Run("create", func(t *testing.T) { s.otherUserCreate(t) })
	status, err := s.alice.v1().Status(t.Context(), &pb.DataMovementStatusRequest{Uid: hers})
	if err != nil || status.State != pb.DataMovementStatusResponse_RUNNING {
		t.Errorf("alice's own: %v %v", status, err)
	}
	s.Stop(s.daemon)
}

// everyRecord raises the limit of log records above the number of calls of a test.
const everyRecord = "[limits]\nlog_record_burst = 10000\n"

// addMovement creates a movement of alice's workflow that the daemon has not created.
func (s *env) addMovement(namespace, name, initiator string) string {
	s.t.Helper()
	s.Apply(fixture.DataMovement(namespace, name, initiator, s.hers.Name, s.hers.UID, map[string]any{"userId": alice, "groupId": alice}))
	return name
}

// missingName returns a name of the same length, in the same namespace, without an object.
func missingName(uid string) string { return uid[:len(uid)-3] + "zzz" }

// startWatches starts the watches of both namespaces.
func (s *env) startWatches(t *testing.T, uids ...string) {
	t.Helper()
	for _, uid := range uids {
		if _, err := s.alice.v1().Status(t.Context(), &pb.DataMovementStatusRequest{Uid: uid}); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range s.Proxy.Requests() {
		if r.Class == lab.ClassWatch && r.Code() == 200 {
			return
		}
	}
	wait.Pass(s.t, 100*time.Millisecond, "the time of a list")
}

// answer has all observable effects of one call.
type answer struct {
	result
	requests []*lab.Request
	log      []lab.LogLine
}

func (s *env) ask(t *testing.T, u *user, q question, uid string, w *pb.DataMovementWorkflow) answer {
	t.Helper()
	return s.observe(t, u, q.method, q.body(uid, w))
}

func (s *env) observe(t *testing.T, u *user, method string, m proto.Message) answer {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	requests, log := len(s.Proxy.Requests()), len(s.daemon.Log())
	a := answer{result: u.wire(method, body, "")}
	// Log lines from before the response can arrive a moment later.
	mark := fmt.Sprintf("nnf-dm-mark-%d", time.Now().UnixNano())
	if _, err := u.v1().Create(t.Context(), &pb.DataMovementCreateRequest{Workflow: &pb.DataMovementWorkflow{Name: mark + "!", Namespace: "x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.daemon.WaitLog(s.Context(10*time.Second), func(l lab.LogLine) bool { return strings.Contains(l.Text, mark) }); err != nil {
		t.Fatal(err)
	}
	a.requests = s.Proxy.Requests()[requests:]
	for _, l := range s.daemon.Log()[log:] {
		if !strings.Contains(l.Text, mark) {
			a.log = append(a.log, l)
		}
	}
	return a
}

// wire returns the bytes of the response, with the name replaced by a placeholder.
func (a answer) wire(name string) []byte {
	return bytes.ReplaceAll(slices.Concat(a.Body, []byte{'|'}, a.Status), []byte(name), bytes.Repeat([]byte("?"), len(name)))
}

// requestsTo lists the requests to the API server except watches, with the name replaced by a
// placeholder.
func (a answer) requestsTo(name string) (list []string) {
	for _, r := range a.requests {
		if r.Class != lab.ClassWatch {
			list = append(list, r.Class+" "+strings.ReplaceAll(r.Path+"?"+r.Query, name, "?"))
		}
	}
	return list
}

// recorded checks that the log has n records of a refusal, each with the caller, the call and
// the object.
func (a answer) recorded(t *testing.T, n int, u *user, method, object string) {
	t.Helper()
	records := 0
	for _, l := range a.log {
		if l.Fields["msg"] != "refused" {
			continue
		}
		records++
		named, _ := l.Fields["object"].(string)
		if l.Fields["uid"] != float64(u.uid) || l.Fields["pid"] != float64(u.pid) || l.Fields["rpc"] != method || !strings.Contains(named, object) || l.Fields["reason"] == "" {
			t.Errorf("the record is %s", l.Text)
		}
	}
	if records != n {
		t.Errorf("%s by %d: %d records of a refusal, want %d: %v", method, u.uid, records, n, a.log)
	}
}

func (a answer) code(t *testing.T) codes.Code {
	t.Helper()
	var st spb.Status
	if err := proto.Unmarshal(a.Status, &st); err != nil {
		t.Fatal(err)
	}
	return codes.Code(st.Code)
}

// Lists are the same whether other users have movements or not.
func (s *env) otherUserList(t *testing.T) {
	missing := &pb.DataMovementWorkflow{Name: missingName(s.hers.Name), Namespace: "default"}
	for method, message := range map[string]func(w *pb.DataMovementWorkflow) proto.Message{
		"/datamovement.DataMover/List":    func(w *pb.DataMovementWorkflow) proto.Message { return &pb.DataMovementListRequest{Workflow: w} },
		"/datamovement.v2.DataMover/Wait": func(w *pb.DataMovementWorkflow) proto.Message { return &pb2.WaitRequest{Workflow: second(w)} },
	} {
		foreign, guessed := s.observe(t, s.bob, method, message(s.hers.Ref())), s.observe(t, s.bob, method, message(missing))
		if !bytes.Equal(foreign.wire(s.hers.Name), guessed.wire(missing.Name)) || len(foreign.Body) > 0 {
			t.Errorf("%s: %q and %q", method, foreign.wire(s.hers.Name), guessed.wire(missing.Name))
		}
		if a, b := foreign.requestsTo(s.hers.Name), guessed.requestsTo(missing.Name); !slices.Equal(a, b) {
			t.Errorf("%s: requests %q and %q", method, a, b)
		}
		foreign.recorded(t, 1, s.bob, method, s.hers.Name)
		guessed.recorded(t, 0, s.bob, method, missing.Name)
	}
}

// TestLinks: links that lead out of the mount give no access, because the rabbit copies as
// the user: files that she cannot read are not copied.
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
	s.StartRabbit(map[string]string{s.hers.OnRabbit(0): storage, fixture.Global: global})
	for _, c := range []struct {
		source, destination string
		works               bool
	}{
		{"/", "/tree/", true}, // links are copied as links
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
			t.Errorf("%s contains data that alice cannot read", path)
		}
		copied++
		return err
	})
	if err != nil || copied != 2 {
		t.Errorf("%d files were copied, want 2: %v", copied, err)
	}
	if left, err := os.ReadDir(closed); err != nil || len(left) != 1 {
		t.Errorf("a file was created where alice cannot write: %v %v", left, err)
	}
	s.Stop(s.daemon)
}

// tree creates a directory of a user with files.
func (s *env) tree(dir string, mode os.FileMode, uid int, files map[string]string) {
	s.t.Helper()
	s.Must(os.Mkdir(dir, mode))
	s.Must(os.Chown(dir, uid, uid))
	for name, text := range files {
		path := filepath.Join(dir, name)
		s.Must(os.WriteFile(path, []byte(text), 0o600))
		s.Must(os.Chown(path, uid, uid))
	}
}
