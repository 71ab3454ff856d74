package offload

import (
	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var createPromises = []promise{
	{"the version", "4.1", one, versionAnswer},
	{"the checks in their order", "4.2/1 4.2/2 4.2/3 4.2/5 4.2/7 4.2/ok 9.26", both, checksInOrder},
	{"only PreRun completed", "4.2/2", one, onlyPreRun},
	{"a profile by its name", "4.2.5/named", both, namedProfile},
	{"only gfs2 and lustre", "4.2/4", one, otherFileSystems},
}

func versionAnswer(s *env) {
	s.usual()
	got, err := s.me.Version(s.ctx(), nil)
	out, code := s.run("version")
	if code != 0 {
		s.t.Fatal(code, out)
	}
	s.answered("version", got, err, &pb.DataMovementVersionResponse{Version: out[len("Version ") : len(out)-1], ApiVersions: []string{"1"}})
}

// Everything is wrong with a request, and is put right in the order of the
// checks.
func checksInOrder(s *env) {
	s.config = forgetful
	s.system()
	s.workflow(func(o lab.Object) { o["status"] = fields{"state": "Setup", "status": "Completed", "ready": true} })
	s.start()
	wrong := func(w *wish) {
		w.Source, w.Destination, w.Profile = "/elsewhere/a", "/nowhere/b", "nope"
	}
	s.refused(createFailed, `could not find workflow "default/nope"`, wrong, func(w *wish) { w.Workflow.Name = "nope" })
	s.refused(createFailed, "Workflow must be in 'PreRun' state and 'Completed' status", wrong)
	s.workflowIs("PreRun", "Completed")
	s.refused(createFailed, "Error finding compute mount info: no client mounts found for node 'NODE'", wrong)
	s.Mounted(s.clientMount("computes", s.Node, s.entry(s.path)))
	s.refused(createFailed, "Error finding compute mount info: source path '/elsewhere/a' not found in list of client mounts", wrong)
	inMount := from(s.path + "/a")
	s.refused(createFailed, s.k.step+"no client mounts found for node 'RABBIT'", wrong, inMount)
	s.Mounted(s.clientMount("servers", s.Rabbit, s.entry(s.onRabbit)))
	s.refused(createFailed, s.k.step+"unable to find a LustreFileSystem resource matching /nowhere/b", wrong, inMount)
	there := to(global + "/b")
	s.refused(createFailed, "Error finding profile: unable to retrieve NnfDataMovementProfile: nope", wrong, inMount, there)
	if n := s.Movements(api.LabelOwnerName, s.job); n != 0 {
		s.t.Errorf("refused requests made %d movements", n)
	}
	uid := s.create(inMount, there)
	if got := uid[:min(len(uid), len(s.k.prefix))]; got != s.k.prefix || len(uid) <= len(s.k.prefix) {
		s.t.Errorf("uid %q, want one with %q", uid, s.k.prefix)
	}
	s.same("the object's name", s.Movement(uid).Name(), uid)
}

func (s *env) workflowIs(state, status string) {
	s.t.Helper()
	_, err := s.Cluster.Patch(s.ctx(), "Workflow", "default", s.job, lab.Object{"status": fields{"state": state, "status": status, "ready": true}})
	s.must(err)
}

func onlyPreRun(s *env) {
	s.config = forgetful
	s.usual()
	for _, state := range []string{"Proposal", "Setup", "DataIn", "PreRun", "PostRun", "DataOut", "Teardown"} {
		for _, status := range []string{"Completed", "DriverWait", "TransientCondition", "Error"} {
			s.workflowIs(state, status)
			if state == "PreRun" && status == "Completed" {
				s.create()
			} else {
				s.refused(createFailed, "Workflow must be in 'PreRun' state and 'Completed' status")
			}
		}
	}
}

func namedProfile(s *env) {
	s.usual()
	s.Apply(world.MovementProfile(s.job, false))
	uid := s.create(func(w *wish) { w.Profile = s.job })
	s.same("profile", s.Movement(uid).String("spec", "profileReference", "name"), s.job)
	s.refused(createFailed, "Error finding profile: unable to retrieve NnfDataMovementProfile: no-such", func(w *wish) { w.Profile = "no-such" })
}

// The rabbit cannot mount a second time what is mounted on the compute.
func otherFileSystems(s *env) {
	s.usual()
	var entries []fields
	for _, typ := range []string{"xfs", "none"} {
		e := s.entry("/mnt/nnf/" + s.uid + "-" + typ)
		e["type"] = typ
		entries = append(entries, e)
	}
	s.Mounted(s.clientMount("others", s.Node, entries...))
	for _, typ := range []string{"xfs", "none"} {
		s.refused(createInvalid, "filesystem not supported: '"+typ+"'", from("/mnt/nnf/"+s.uid+"-"+typ+"/a"))
	}
	s.create()
}
