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
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// question is a call about a movement.
type question struct {
	method string
	body   func(uid string, w *pb.DataMovementWorkflow) proto.Message
}

// questions are all that can be asked about one, in both versions.
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

// TestForeign: what is not the caller's looks exactly like what does not exist:
// the same bytes, and the same work for the API server; the object stays as it
// is, and the administrator gets one record.
func TestForeign(t *testing.T) {
	t.Parallel()
	s := newEnv(t, everyRecord)
	hers := s.alice.create(s.hers.Request("/out/", "/alice/"))
	s.Runs(hers)
	early := s.alice.create(s.hers.Request("/early/", "/alice/"))
	if c, err := s.alice.v1().Cancel(t.Context(), &pb.DataMovementCancelRequest{Uid: early}); err != nil || c.Status != pb.DataMovementCancelResponse_SUCCESS {
		t.Fatal(c, err)
	}
	copyIn := s.plant("nnf-dm-system", "copyin-"+s.Node, "copy_in")
	elsewhere := s.plant(s.Rabbit, "nnf-dm-node-"+s.Node, "compute-elsewhere")
	for _, target := range []struct {
		name     string
		uid      string
		by       *user
		workflow *pb.DataMovementWorkflow
	}{
		{"another user's", hers, s.bob, s.hers.Ref()},
		{"another user's, in one's own workflow", hers, s.bob, s.his.Ref()},
		{"another user's, cancelled before its start", early, s.bob, s.hers.Ref()},
		{"one's own, in another's workflow", hers, s.alice, s.his.Ref()},
		{"copy_in of one's own workflow", copyIn, s.alice, s.hers.Ref()},
		{"copy_in of another's workflow", copyIn, s.bob, s.his.Ref()},
		{"one's own, of another compute", elsewhere, s.alice, s.hers.Ref()},
	} {
		t.Run(strings.ReplaceAll(target.name, " ", "-"), func(t *testing.T) {
			missing := unlike(target.uid)
			before := s.Movement(target.uid).String("metadata", "resourceVersion")
			for _, q := range questions {
				// The watch that a first question begins is none of the question's.
				s.awaken(t, target.uid, hers)
				var foreign, guessed answer
				// The daemon remembers for two seconds what a user was told not to exist. If
				// that time passes between the two, they are asked again.
				for range 3 {
					foreign = s.ask(t, target.by, q, target.uid, target.workflow)
					guessed = s.ask(t, target.by, q, missing, target.workflow)
					if slices.Equal(foreign.asked(target.uid), guessed.asked(missing)) {
						break
					}
				}
				if !bytes.Equal(foreign.wire(target.uid), guessed.wire(missing)) {
					t.Errorf("%s: the answers differ:\n%q\n%q", q.method, foreign.wire(target.uid), guessed.wire(missing))
				}
				if a, b := foreign.asked(target.uid), guessed.asked(missing); !slices.Equal(a, b) {
					t.Errorf("%s: the API server was asked\n%q for one that exists, and\n%q for one that does not", q.method, a, b)
				}
				foreign.recorded(t, 1, target.by, q.method, target.uid)
				guessed.recorded(t, 0, target.by, q.method, missing)
			}
			if now := s.Movement(target.uid).String("metadata", "resourceVersion"); now != before {
				t.Error("the object was changed")
			}
		})
	}
	t.Run("list", func(t *testing.T) { s.foreignList(t) })
	t.Run("create", func(t *testing.T) { s.foreignCreate(t) })
	status, err := s.alice.v1().Status(t.Context(), &pb.DataMovementStatusRequest{Uid: hers})
	if err != nil || status.State != pb.DataMovementStatusResponse_RUNNING {
		t.Errorf("alice's own: %v %v", status, err)
	}
	s.Stop(s.daemon)
}

// everyRecord lets one user cause as many records as a test has questions.
const everyRecord = "[limits]\nlog_record_burst = 10000\n"

// plant makes a movement of alice's workflow that the daemon has not made.
func (s *env) plant(namespace, name, initiator string) string {
	s.t.Helper()
	s.Apply(world.DataMovement(namespace, name, initiator, s.hers.Name, s.hers.UID, map[string]any{"userId": alice, "groupId": alice}))
	return name
}

// unlike is a name of the same length, in the same namespace, of no object.
func unlike(uid string) string { return uid[:len(uid)-3] + "zzz" }

// awaken makes the watches of both namespaces run.
func (s *env) awaken(t *testing.T, uids ...string) {
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

// answer is all that can be known of one question.
type answer struct {
	result
	requests []*lab.Request
	log      []lab.LogLine
}

func (s *env) ask(t *testing.T, u *user, q question, uid string, w *pb.DataMovementWorkflow) answer {
	t.Helper()
	return s.tell(t, u, q.method, q.body(uid, w))
}

func (s *env) tell(t *testing.T, u *user, method string, m proto.Message) answer {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	requests, log := len(s.Proxy.Requests()), len(s.daemon.Log())
	a := answer{result: u.wire(method, body, "")}
	// What the daemon writes before it answers may come a moment later.
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

// wire is what came over the wire, with a stand-in for the name.
func (a answer) wire(name string) []byte {
	return bytes.ReplaceAll(slices.Concat(a.Body, []byte{'|'}, a.Status), []byte(name), bytes.Repeat([]byte("?"), len(name)))
}

// asked lists the requests to the API server but watches, with a stand-in for
// the name.
func (a answer) asked(name string) (list []string) {
	for _, r := range a.requests {
		if r.Class != lab.ClassWatch {
			list = append(list, r.Class+" "+strings.ReplaceAll(r.Path+"?"+r.Query, name, "?"))
		}
	}
	return list
}

// recorded fails unless the log has n records of a refusal, each of which says
// who was refused what.
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

// Lists show nothing of others, whether there is something or not.
func (s *env) foreignList(t *testing.T) {
	missing := &pb.DataMovementWorkflow{Name: unlike(s.hers.Name), Namespace: "default"}
	for method, message := range map[string]func(w *pb.DataMovementWorkflow) proto.Message{
		"/datamovement.DataMover/List":    func(w *pb.DataMovementWorkflow) proto.Message { return &pb.DataMovementListRequest{Workflow: w} },
		"/datamovement.v2.DataMover/Wait": func(w *pb.DataMovementWorkflow) proto.Message { return &pb2.WaitRequest{Workflow: second(w)} },
	} {
		foreign, guessed := s.tell(t, s.bob, method, message(s.hers.Ref())), s.tell(t, s.bob, method, message(missing))
		if !bytes.Equal(foreign.wire(s.hers.Name), guessed.wire(missing.Name)) || len(foreign.Body) > 0 {
			t.Errorf("%s: %q and %q", method, foreign.wire(s.hers.Name), guessed.wire(missing.Name))
		}
		if a, b := foreign.asked(s.hers.Name), guessed.asked(missing.Name); !slices.Equal(a, b) {
			t.Errorf("%s: asked %q and %q", method, a, b)
		}
		foreign.recorded(t, 1, s.bob, method, s.hers.Name)
		guessed.recorded(t, 0, s.bob, method, missing.Name)
	}
}

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

// tree makes a directory of a user with files in it.
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
