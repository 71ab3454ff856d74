package offload

import (
	"encoding/json"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var objectPromises = []promise{
	{"the object to the byte", "4.2.6 4.2.3/object 4.2.4 9.15 9.29", both, theObject},
}

const expectedGFS2 = `
apiVersion: nnf.cray.hpe.com/v1alpha11
kind: NnfDataMovement
metadata:
  generateName: nnf-dm-node-
  namespace: RABBIT
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
  source:
    path: /mnt/nnf/WORKFLOW-0/RABBIT-3/out/
    storageReference: {kind: NnfNodeStorage, name: default-JOB-0-gfs2-0, namespace: RABBIT}
  destination: {path: /lus/global/alice/}
  userId: 1001
  groupId: 1001
  profileReference: {kind: NnfDataMovementProfile, name: default, namespace: nnf-system}
  userConfig: CONFIG
`

const expectedLustre = `
apiVersion: nnf.cray.hpe.com/v1alpha11
kind: NnfDataMovement
metadata:
  generateName: nnf-dm-
  namespace: nnf-dm-system
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
  source:
    path: /mnt/nnf/WORKFLOW-0/out/
    storageReference: {kind: NnfStorage, name: JOB-0, namespace: default}
  destination:
    path: /lus/global/alice/
    storageReference: {kind: LustreFileSystem, name: global, namespace: default}
  userId: 1001
  groupId: 1001
  profileReference: {kind: NnfDataMovementProfile, name: default, namespace: nnf-system}
  userConfig: CONFIG
`

// The body of the daemon's request is compared, and what the API server has made
// of it.
func theObject(s *env) {
	s.usual()
	for config, change := range map[string]func(*wish){
		`{slots: 8}`:               func(w *wish) { w.Slots = 8 },
		`{}`:                       func(*wish) {},
		`{slots: 0, maxSlots: 0}`:  func(w *wish) { w.Slots, w.MaxSlots = 0, 0 },
		`{slots: 4, maxSlots: 64}`: func(w *wish) { w.Slots, w.MaxSlots = 4, 64 },
		`{dryrun: true, logStdout: true, storeStdout: true, dcpOptions: "--preserve -v", mpirunOptions: "-np 2"}`: func(w *wish) {
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
	text := expectedGFS2
	if s.k == lustre {
		text = expectedLustre
	}
	text = strings.NewReplacer("WORKFLOW", s.uid, "CONFIG", config).Replace(s.fill(text))
	var o lab.Object
	s.must(yaml.Unmarshal([]byte(text), &o))
	return o
}

// body is that of the last request of a class.
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
		s.t.Fatalf("no %s request with a body of JSON: %q %v", class, last, err)
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
