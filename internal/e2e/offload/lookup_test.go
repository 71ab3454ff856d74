package offload

import (
	"os"
	"strings"

	"google.golang.org/grpc/codes"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var lookupBehaviours = []behaviour{
	{"the rabbit is found when it is configured", "9.17", one, rabbitLater},
	{"the rabbit changes", "9.17", one, recabled},
	{"an external compute copies from lustre", "9.17 9.18", alone, externalCompute},
	{"an external compute cannot copy from gfs2", "9.17", one, externalGFS2},
	{"the rabbit is configured by a flag", "9.17", one, rabbitGiven},
	{"the node's name is the short host name", "9.16", one, shortName},
}

// The daemon starts although its rabbit is unknown, and reports this to callers.
func rabbitLater(s *env) {
	s.config = uncached
	s.workflow(nil)
	s.mounts()
	s.start()
	if _, err := s.me.Version(s.ctx(), nil); err != nil {
		s.t.Error(err)
	}
	for _, nodes := range [][]any{nil, {fixture.StorageNode(s.Rabbit, "another-compute")}} {
		if nodes != nil {
			s.configuration(nodes)
		}
		_, err := s.me.Create(s.ctx(), s.usualRequest())
		s.code("create", err, codes.Unavailable)
		_, err = s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Uid: "nnf-dm-node-a"})
		s.code("status", err, codes.Unavailable)
		_, err = s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{"nnf-dm-node-a"}})
		s.code("wait", err, codes.Unavailable, pb2.ErrorReason_UNAVAILABLE)
	}
	s.system()
	s.create()
}

func recabled(s *env) {
	s.config = uncached
	s.usual()
	s.create()
	next := s.Rabbit + "-b"
	s.Namespace(next)
	s.Mounted(s.clientMount("servers", next, s.entry("/mnt/there")))
	s.configuration([]any{fixture.StorageNode(s.Rabbit, "another-compute"), fixture.StorageNode(next, s.Node)})
	s.Rabbit = next
	uid := s.create(from(s.path + "/a"))
	s.same("on the new rabbit", s.Movement(uid).String("spec", "source", "path"), "/mnt/there/a")
	s.is(uid, pending, unknownStatus)
}

func externalCompute(s *env) {
	s.configuration([]any{fixture.StorageNode(s.Rabbit, "another-compute")}, fields{"name": s.Node})
	s.workflow(nil)
	s.mounts()
	s.start()
	s.becomes(s.path+"/a", s.onRabbit+"/a")
	s.answered("no movement of a rabbit", s.status("nnf-dm-node-a", 0), nil, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound})
}

func externalGFS2(s *env) {
	s.configuration([]any{fixture.StorageNode(s.Rabbit, "another-compute")}, fields{"name": s.Node})
	s.workflow(nil)
	s.mounts()
	s.start()
	s.refused(createFailed, s.k.step+"no client mounts found: node 'NODE' has no rabbit and can copy from lustre only")
}

func rabbitGiven(s *env) {
	s.workflow(nil)
	s.mounts()
	s.start("--nnf-node-name=" + s.Rabbit)
	s.is(s.create(), pending, unknownStatus)
	for _, r := range s.Proxy.Requests() {
		if strings.Contains(r.Path, "systemconfigurations") {
			s.t.Errorf("request for the SystemConfiguration: %s", r.Path)
		}
	}
}

// The host name is a full name. The SystemConfiguration may contain the full or the short
// name.
func shortName(s *env) {
	s.workflow(nil)
	s.mounts()
	s.system()
	spec := s.spec()
	spec.Node = ""
	spec.Wrap = []string{"unshare", "--uts", "/bin/sh", "-c", `echo "$0" >/proc/sys/kernel/hostname && exec "$@"`, s.Node + ".cluster.example"}
	s.startWith(spec)
	o := s.Movement(s.create())
	s.same("initiator", o.String("metadata", "labels", "dm.cray.hpe.com/initiator"), s.Node)
	if host, err := os.Hostname(); err != nil || strings.HasPrefix(host, s.Node) {
		s.t.Errorf("the host name is %q, %v", host, err)
	}
}

var bareBehaviours = []behaviour{
	{"doctor: no global file system, no storage", "v2/Describe", one, doctorBare},
	{"missing objects of the administrator", "4.2.3/none 4.2.5/none 4.2.5/several 4.2.5/default 4.2.5/pinned", both, notSetUp},
}

// uncached disables the cache of the daemon.
const uncached = "[options]\nlookup_expiry = \"0s\"\n"

func notSetUp(s *env) {
	s.config = uncached
	s.usual()
	s.refused(createFailed, s.k.step+"no LustreFileSystem resources found")
	s.Apply(fixture.FileSystem("early", global))
	const none = "Error finding profile: unable to find a default NnfDataMovementProfile to use"
	s.refused(createFailed, none)
	s.Apply(fixture.MovementProfile("plain", false))
	pinned := fixture.MovementProfile("pinned-copy", true)
	pinned["metadata"].(fields)["namespace"] = "default"
	s.Apply(pinned)
	s.refused(createFailed, none)
	s.Apply(fixture.MovementProfile("zeta", true))
	uid := s.create()
	s.same("the default profile", s.Movement(uid).String("spec", "profileReference", "name"), "zeta")
	s.Apply(fixture.MovementProfile("alpha", true))
	s.refused(createFailed, "Error finding profile: more than one default NnfDataMovementProfile found; unable to pick one: [alpha zeta]")
	s.create(func(w *createRequest) { w.Profile = "plain" })
	for _, o := range []lab.Object{fixture.MovementProfile("plain", false), pinned, fixture.MovementProfile("zeta", true), fixture.MovementProfile("alpha", true), fixture.FileSystem("early", global)} {
		s.Must(s.Cluster.Delete(s.ctx(), o.String("kind"), o.Namespace(), o.Name()))
	}
}
