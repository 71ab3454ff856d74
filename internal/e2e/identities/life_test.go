package identities

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// useAccount starts a proxy, and gives daemons that are started afterwards the account of the
// node. It returns when the server uses the roles and the policies.
func (s *system) useAccount(daemon string, permitted, refused call) {
	s.t.Helper()
	s.UseProxy()
	token := s.token(daemon, s.Node)
	s.Token = s.Write("token", token)
	client := s.Client(token)
	wait.Within(s.t, patience, "the role", func() bool {
		_, err := request(permitted.dry(), s.t, client)
		return err == nil
	})
	wait.Within(s.t, patience, "the policy", func() bool {
		_, err := request(refused.dry(), s.t, client)
		return err != nil
	})
}

// neverRefused checks that the server has refused no request of the daemon except for those with
// one of these paths, each once.
func (s *system) neverRefused(except ...string) {
	s.t.Helper()
	seen := map[string]bool{}
	for _, r := range s.Proxy.Requests() {
		seen[r.Class] = true
		i := slices.Index(except, r.Path)
		if code := r.Code(); code == http.StatusForbidden && i >= 0 {
			except = slices.Delete(except, i, i+1)
		} else if code == http.StatusForbidden || code == http.StatusUnauthorized {
			s.t.Errorf("%s %s: %d", r.Method, r.Path, code)
		}
	}
	if !seen[lab.ClassWatch] || !seen[lab.ClassGet] {
		s.t.Errorf("the daemon has only sent requests of the classes %v", seen)
	}
}

// clientmountd mounts, unmounts and removes its finalizer with the account of its node, also if
// another program has a finalizer, and reports errors.
func TestClientmountd(t *testing.T) {
	s := newSystem(t)
	s.Volume(0, lab.VolumeOptions{})
	spec := fixture.MountSpec{Path: s.Path("m"), Type: "xfs"}
	s.Mount("m", spec)
	path := lab.Path("ClientMount", s.Node, "m")
	s.useAccount("clientmountd", merge(path+"/status", lab.Object{}), merge(path, nested("x", "metadata", "labels", "new")))
	daemon := s.Start()
	o := s.Await("m", "mounted")
	if !slices.Contains(o.At("metadata", "finalizers").([]any), any(api.FinalizerClientMount)) {
		t.Errorf("the finalizers are %v", o.At("metadata", "finalizers"))
	}
	_, err := s.Cluster.PatchPath(s.Context(s.Patience), path, jsonPatch, []any{map[string]any{"op": "add", "path": "/metadata/finalizers/0", "value": foreignFinalizer}})
	s.Must(err)
	s.Mount("broken", fixture.MountSpec{Path: "/etc/m", Type: "xfs"})
	s.AwaitError("broken")
	s.Unmount("m")
	s.Remove("m")
	o = s.AwaitStatus("m", func(o lab.Object) bool { return len(o.At("metadata", "finalizers").([]any)) == 1 })
	if o.At("metadata", "finalizers", 0) != foreignFinalizer {
		t.Errorf("the finalizers are %v", o.At("metadata", "finalizers"))
	}
	s.Must(s.Cluster.DropFinalizers(s.Context(s.Patience), "ClientMount", s.Node, "m"))
	s.Must(s.Cluster.WaitGone(s.Context(s.Patience), "ClientMount", s.Node, "m"))
	s.Delete("broken")
	s.Stop(daemon)
	s.neverRefused()
	if text := logOf(daemon); strings.Contains(text, "may not") {
		t.Errorf("the log has\n%s", text)
	}
}

func logOf(p *lab.Process) string {
	var b strings.Builder
	for _, l := range p.Log() {
		b.WriteString(l.Text)
	}
	return b.String()
}

// nnf-dm creates, follows, cancels and deletes data movements with the account of its node: of
// the rabbit, and of a Lustre file system that only another rabbit has mounted.
func TestMover(t *testing.T) {
	s := newSystem(t)
	job := s.Job("job-"+s.Node, 1001, 0)
	for _, node := range []string{s.Node, s.other} {
		s.Mounted(fixture.ClientMount("lustre", node, fixture.ClientMountSpec{
			Profile: s.Profile, OwnerUID: s.Owner, Directive: "1", Workflow: job.Name, WorkflowUID: job.UID,
			Mounts: []fixture.MountSpec{{Path: job.Mount(1), Type: "lustre", FSName: "l", MGS: "10.1.1.1@tcp"}},
		}))
	}
	collection := lab.Path("NnfDataMovement", s.Rabbit, "")
	s.useAccount("nnf-dm", create(collection, movement(s.Rabbit, "probe", s.Node, 1001, 1001)), create(collection, movement(s.Rabbit, "probe", s.near, 1001, 1001)))
	daemon := s.StartMover()
	client := pb.NewDataMoverClient(s.Dial())
	ctx := s.Context(patience)
	copies := []*pb.DataMovementCreateRequest{job.Request("/out/", "/alice/"), job.Request("/out/", "/alice/")}
	copies[0].DcpOptions, copies[0].MpirunOptions = "-p --chunksize 4MB", "--oversubscribe -np 2"
	copies[1].Source = job.Mount(1) + "/out/"
	for _, r := range copies {
		made := func() string {
			a, err := client.Create(ctx, r)
			s.Must(err)
			if a.Status != pb.DataMovementCreateResponse_SUCCESS {
				t.Fatalf("create: %v", a)
			}
			return a.Uid
		}
		// One that is cancelled before the rabbit starts it, one while it runs, one that succeeds.
		for _, end := range []string{"", "Cancelled", "Success"} {
			uid := made()
			if ns := s.MovementNamespace(uid); (ns == s.Rabbit) == (r == copies[1]) {
				t.Errorf("%s is in namespace %s", r.Source, ns)
			}
			if end != "" {
				s.Runs(uid)
			}
			if end != "Success" {
				a, err := client.Cancel(ctx, &pb.DataMovementCancelRequest{Workflow: job.Ref(), Uid: uid})
				if err != nil || a.Status != pb.DataMovementCancelResponse_SUCCESS {
					t.Errorf("cancel: %v %v", a, err)
				}
			}
			if end == "" {
				if s.Movement(uid) != nil {
					t.Errorf("%s was not deleted", uid)
				}
				continue
			}
			if o := s.Movement(uid); (o.At("spec", "cancel") == true) != (end == "Cancelled") {
				t.Errorf("cancel is %v", o.At("spec", "cancel"))
			}
			s.Ends(uid, end)
			st, err := client.Status(ctx, &pb.DataMovementStatusRequest{Workflow: job.Ref(), Uid: uid, MaxWaitTime: -1})
			if err != nil || st.State != pb.DataMovementStatusResponse_COMPLETED {
				t.Errorf("status: %v %v", st, err)
			}
			gone, err := client.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: job.Ref(), Uid: uid})
			if err != nil || gone.Status != pb.DataMovementDeleteResponse_SUCCESS || s.Movement(uid) != nil {
				t.Errorf("delete: %v %v", gone, err)
			}
		}
	}
	s.Stop(daemon)
	s.neverRefused(lab.Path("NnfDataMovement", "", "")) // it then lists two namespaces
}
