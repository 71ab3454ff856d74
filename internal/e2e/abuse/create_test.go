package abuse

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// otherUserCreate: for Create, a workflow of another user is indistinguishable from a missing
// one.
func (s *env) otherUserCreate(t *testing.T) {
	missing := &pb.DataMovementWorkflow{Name: missingName(s.hers.Name), Namespace: "default"}
	v1 := func(w *pb.DataMovementWorkflow) proto.Message {
		r := s.hers.Request("/out/", "/bob/")
		r.Workflow = w
		return r
	}
	v2 := func(w *pb.DataMovementWorkflow) proto.Message {
		r := v1(w).(*pb.DataMovementCreateRequest)
		return &pb2.CreateBatchRequest{Workflow: second(w), Pairs: []*pb2.CopyPair{{Source: r.Source, Destination: r.Destination}}}
	}
	before := s.Created()
	for method, message := range map[string]func(*pb.DataMovementWorkflow) proto.Message{
		createMethod: v1, "/datamovement.v2.DataMover/CreateBatch": v2,
	} {
		foreign, guessed := s.observe(t, s.bob, method, message(s.hers.Ref())), s.observe(t, s.bob, method, message(missing))
		if !bytes.Equal(foreign.wire(s.hers.Name), guessed.wire(missing.Name)) {
			t.Errorf("%s: %q and %q", method, foreign.wire(s.hers.Name), guessed.wire(missing.Name))
		}
		if a, b := foreign.requestsTo(s.hers.Name), guessed.requestsTo(missing.Name); !slices.Equal(a, b) {
			t.Errorf("%s: requests %q and %q", method, a, b)
		}
		foreign.recorded(t, 1, s.bob, method, s.hers.Name)
		guessed.recorded(t, 0, s.bob, method, missing.Name)
	}
	if now := s.Created(); now != before {
		t.Errorf("%d movements were created", now-before)
	}
}

// TestIdentity: copies run as the workflow's user, and no user gains privileges.
func TestIdentity(t *testing.T) {
	t.Parallel()
	s := newEnv(t, "")
	set := func(j *fixture.Job, user, group int) *fixture.Job {
		t.Helper()
		change := lab.Object{"spec": map[string]any{"userID": user, "groupID": group}}
		if _, err := s.Cluster.Patch(t.Context(), "Workflow", "default", j.Name, change); err != nil {
			t.Fatal(err)
		}
		return j
	}
	group := set(s.Job("group-"+s.Node, alice, 0), alice, bob)
	rootGroup := set(s.Job("rootgroup-"+s.Node, alice, 0), alice, 0)
	unknown := s.Job("unmapped-"+s.Node, 65534, 0)
	root := set(s.Job("root-"+s.Node, 0, 0), 0, 0)
	before := s.Created()
	for _, c := range []struct {
		name   string
		by     *user
		job    *fixture.Job
		code   codes.Code
		status pb.DataMovementCreateResponse_Status
	}{
		{"a group that is not the caller's", s.alice, group, codes.PermissionDenied, 0},
		{"the group of root", s.alice, rootGroup, codes.PermissionDenied, 0},
		{"an unmapped identity", newUser(t, s.Socket, 65534), unknown, codes.OK, pb.DataMovementCreateResponse_FAILED},
		{"root's own workflow, by a user", s.alice, root, codes.OK, pb.DataMovementCreateResponse_FAILED},
	} {
		a := s.observe(t, c.by, createMethod, c.job.Request("/out/", "/x/"))
		var r pb.DataMovementCreateResponse
		if err := proto.Unmarshal(a.Body, &r); err != nil {
			t.Fatal(err)
		}
		if a.code(t) != c.code || c.code == codes.OK && r.Status != c.status {
			t.Errorf("%s: %v %v", c.name, a.code(t), &r)
		}
		a.recorded(t, 1, c.by, createMethod, c.job.Name)
	}
	own := pb.NewDataMoverClient(s.Dial())
	if _, err := own.Create(t.Context(), root.Request("/out/", "/x/")); err == nil || !strings.Contains(err.Error(), "copies as root are not allowed") {
		t.Errorf("root for a workflow of root: %v", err)
	}
	if now := s.Created(); now != before {
		t.Errorf("%d movements were created", now-before)
	}
	// Root may act for alice, but the copy still runs as alice.
	made, err := own.Create(t.Context(), s.hers.Request("/out/", "/x/"))
	if err != nil || made.Status != pb.DataMovementCreateResponse_SUCCESS {
		t.Fatal(made, err)
	}
	if o := s.Movement(made.Uid); o.At("spec", "userId") != float64(alice) || o.At("spec", "groupId") != float64(alice) {
		t.Errorf("root copies as %v:%v", o.At("spec", "userId"), o.At("spec", "groupId"))
	}
	s.Stop(s.daemon)
}

// TestMountMatching: mounts are compared by components, and only those of the workflow are
// used.
func TestMountMatching(t *testing.T) {
	t.Parallel()
	s := newEnv(t, "")
	for source, want := range map[string]string{
		s.hers.Mount(1) + "/x":   s.hers.OnRabbit(1) + "/x",
		s.hers.Mount(10) + "/x":  s.hers.OnRabbit(10) + "/x",
		s.hers.Mount(10):         s.hers.OnRabbit(10),
		s.hers.Mount(1) + "0":    s.hers.OnRabbit(10), // the same
		s.hers.Mount(1) + "1/x":  "",
		s.hers.Mount(1) + "00/x": "",
		s.hers.Mount(1) + "x":    "",
		s.his.Mount(0) + "/x":    "", // bob's
		"/mnt/nnf":               "",
		"/":                      "",
	} {
		r := s.hers.Request("", "/alice/")
		r.Source = source
		c, err := s.alice.v1().Create(t.Context(), r)
		switch {
		case err != nil:
			t.Errorf("%s: %v", source, err)
		case want == "" && c.Status != pb.DataMovementCreateResponse_FAILED:
			t.Errorf("%s: %v", source, c)
		case want != "" && (c.Status != pb.DataMovementCreateResponse_SUCCESS || s.Movement(c.Uid).String("spec", "source", "path") != want):
			t.Errorf("%s: %v, want %s", source, c, want)
		}
	}
	// The same for destinations.
	for destination, want := range map[string]pb.DataMovementCreateResponse_Status{
		fixture.Global + "/x":   pb.DataMovementCreateResponse_SUCCESS,
		fixture.Global + "x":    pb.DataMovementCreateResponse_FAILED,
		fixture.Global + "-2/x": pb.DataMovementCreateResponse_FAILED,
		"/etc/cron.d/x":         pb.DataMovementCreateResponse_FAILED,
		"/lus":                  pb.DataMovementCreateResponse_FAILED,
	} {
		r := s.hers.Request("/x", "")
		r.Destination = destination
		if c, err := s.alice.v1().Create(t.Context(), r); err != nil || c.Status != want {
			t.Errorf("%s: %v %v", destination, c, err)
		}
	}
	s.Stop(s.daemon)
}
