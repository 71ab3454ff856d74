package offload

import (
	"encoding/json"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var createBehaviours = []behaviour{
	{"the version", "4.1", one, versionAnswer},
	{"the checks in order", "4.2/1 4.2/2 4.2/3 4.2/5 4.2/7 4.2/ok 9.26", both, checksInOrder},
	{"only PreRun completed", "4.2/2", one, onlyPreRun},
	{"a profile by name", "4.2.5/named", both, namedProfile},
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

// All fields of a request are invalid, and are corrected in the order of the checks.
func checksInOrder(s *env) {
	s.config = uncached
	s.system()
	s.workflow(func(o lab.Object) { o["status"] = fields{"state": "Setup", "status": "Completed", "ready": true} })
	s.start()
	wrong := func(w *createRequest) {
		w.Source, w.Destination, w.Profile = "/elsewhere/a", "/nowhere/b", "nope"
	}
	s.refused(createFailed, `could not find workflow "default/nope"`, wrong, func(w *createRequest) { w.Workflow.Name = "nope" })
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
		s.t.Errorf("refused requests created %d movements", n)
	}
	uid := s.create(inMount, there)
	if got := uid[:min(len(uid), len(s.k.prefix))]; got != s.k.prefix || len(uid) <= len(s.k.prefix) {
		s.t.Errorf("uid %q, want prefix %q", uid, s.k.prefix)
	}
	s.same("the object's name", s.Movement(uid).Name(), uid)
}

func (s *env) workflowIs(state, status string) {
	s.t.Helper()
	_, err := s.Cluster.Patch(s.ctx(), "Workflow", "default", s.job, lab.Object{"status": fields{"state": state, "status": status, "ready": true}})
	s.Must(err)
}

func onlyPreRun(s *env) {
	s.config = uncached
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
	s.Apply(fixture.MovementProfile(s.job, false))
	uid := s.create(func(w *createRequest) { w.Profile = s.job })
	s.same("profile", s.Movement(uid).String("spec", "profileReference", "name"), s.job)
	s.refused(createFailed, "Error finding profile: unable to retrieve NnfDataMovementProfile: no-such", func(w *createRequest) { w.Profile = "no-such" })
}

// The rabbit cannot mount these file systems while they are mounted on the compute.
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

var objectBehaviours = []behaviour{
	{"the exact object", "4.2.6 4.2.3/object 4.2.4 9.15 9.29", both, theObject},
}

// expectedMovement is the object; SPEC is replaced by the part for the file system.
const expectedMovement = `
apiVersion: nnf.cray.hpe.com/v1alpha11
kind: NnfDataMovement
metadata:
  generateName: PREFIX
  namespace: WHERE
  labels:
    dm.cray.hpe.com/initiator: NODE
    nnf.cray.hpe.com/teardown_state: PostRun
    nnf.cray.hpe.com/directive_index: "0"
    nnf.cray.hpe.com/job_id: f9Tk
    dataworkflowservices.github.io/workflow.name: JOB
    dataworkflowservices.github.io/workflow.namespace: default
    dataworkflowservices.github.io/workflow.uid: WORKFLOW
    dataworkflowservices.github.io/owner.kind: Workflow
    dataworkflowservices.github.io/owner.name: JOB
    dataworkflowservices.github.io/owner.namespace: default
    dataworkflowservices.github.io/owner.uid: WORKFLOW
spec:
SPEC
  userId: 1001
  groupId: 1001
  profileReference: {kind: NnfDataMovementProfile, name: default, namespace: nnf-system}
  userConfig: CONFIG
`

const expectedGFS2 = `
  source:
    path: /mnt/nnf/WORKFLOW-0/RABBIT-3/out/
    storageReference: {kind: NnfNodeStorage, name: default-JOB-0-gfs2-0, namespace: RABBIT}
  destination: {path: /lus/global/alice/}
`

const expectedLustre = `
  source:
    path: /mnt/nnf/WORKFLOW-0/out/
    storageReference: {kind: NnfStorage, name: JOB-0, namespace: default}
  destination:
    path: /lus/global/alice/
    storageReference: {kind: LustreFileSystem, name: global, namespace: default}
`

// Compares the body of the daemon's request, and the object that the API server has created
// from it.
func theObject(s *env) {
	s.usual()
	for config, change := range map[string]func(*createRequest){
		`{slots: 8}`:               func(w *createRequest) { w.Slots = 8 },
		`{}`:                       func(*createRequest) {},
		`{slots: 0, maxSlots: 0}`:  func(w *createRequest) { w.Slots, w.MaxSlots = 0, 0 },
		`{slots: 4, maxSlots: 64}`: func(w *createRequest) { w.Slots, w.MaxSlots = 4, 64 },
		`{dryrun: true, logStdout: true, storeStdout: true, dcpOptions: "--preserve -v", mpirunOptions: "-np 2"}`: func(w *createRequest) {
			w.Dryrun, w.LogStdout, w.StoreStdout, w.DcpOptions, w.MpirunOptions = true, true, true, "--preserve -v", "-np 2"
		},
	} {
		s.Proxy.ClearRequests()
		uid := s.create(change)
		want := s.expected(config)
		s.same("the request with "+config, pretty(s.body(lab.ClassCreate)), pretty(want))

		o := s.Movement(uid)
		s.same("labels", pretty(o.At("metadata", "labels")), pretty(want.At("metadata", "labels")))
		s.same("profile", pretty(o.At("spec", "profileReference")), pretty(want.At("spec", "profileReference")))
		s.same("source", pretty(o.At("spec", "source")), pretty(want.At("spec", "source")))
		s.same("destination", pretty(o.At("spec", "destination")), pretty(want.At("spec", "destination")))
		for _, absent := range []string{"finalizers", "ownerReferences", "annotations"} {
			if v := o.At("metadata", absent); v != nil {
				s.t.Errorf("metadata.%s is %v, want none", absent, v)
			}
		}
		if v := o.At("spec", "cancel"); v != nil && v != false {
			s.t.Errorf("spec.cancel is %v", v)
		}
	}
}

func (s *env) expected(config string) lab.Object {
	s.t.Helper()
	spec := expectedGFS2
	if s.k == lustre {
		spec = expectedLustre
	}
	text := strings.Replace(expectedMovement, "SPEC", spec, 1)
	text = strings.NewReplacer("WORKFLOW", s.uid, "CONFIG", config, "PREFIX", s.k.prefix, "WHERE", s.where()).Replace(s.fill(text))
	var o lab.Object
	s.Must(yaml.Unmarshal([]byte(text), &o))
	return o
}

// body returns the body of the last request of a class.
func (s *env) body(class string) lab.Object {
	s.t.Helper()
	var last []byte
	for _, r := range s.Proxy.Requests() {
		if r.Class == class {
			last = r.Body
		}
	}
	var o lab.Object
	if err := json.Unmarshal(last, &o); err != nil {
		s.t.Fatalf("no %s request with a JSON body: %q %v", class, last, err)
	}
	return o
}

func pretty(v any) string {
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(out)
}
