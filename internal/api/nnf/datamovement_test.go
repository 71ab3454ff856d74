package nnf

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

const workflowUID = "11110000-0000-4000-8000-00000000000a"

// example returns the object that the rabbit expects.
func example() *DataMovement {
	slots := int32(8)
	return &DataMovement{
		TypeMeta: metav1.TypeMeta{APIVersion: api.GroupNNF + "/" + api.VersionsNNF[0], Kind: KindDataMovement},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: PrefixNodeMovement, Namespace: "rabbit-01",
			Labels: map[string]string{
				api.LabelInitiator:         "compute-01",
				api.LabelTeardownState:     dws.StatePostRun,
				api.LabelWorkflowName:      "job7",
				api.LabelWorkflowNamespace: "default",
				api.LabelWorkflowUID:       workflowUID,
				api.LabelOwnerKind:         dws.KindWorkflow,
				api.LabelOwnerName:         "job7",
				api.LabelOwnerNamespace:    "default",
				api.LabelOwnerUID:          workflowUID,
			},
		},
		Spec: DataMovementSpec{
			Source: DataMovementEnd{
				Path:             "/mnt/nnf/" + workflowUID + "-0/rabbit-01-3/out/",
				StorageReference: dws.ObjectReference{Kind: "NnfNodeStorage", Name: "default-job7-0-gfs2-0", Namespace: "rabbit-01"},
			},
			Destination:      DataMovementEnd{Path: "/lus/global/alice/out/"},
			UserID:           1001,
			GroupID:          100,
			ProfileReference: dws.ObjectReference{Kind: KindDataMovementProfile, Name: "default", Namespace: NamespaceProfiles},
			UserConfig:       DataMovementConfig{Slots: &slots},
		},
	}
}

// The labels are literals, so that the test detects a wrong constant.
const exampleJSON = `{
"kind":"NnfDataMovement",
"apiVersion":"nnf.cray.hpe.com/v1alpha11",
"metadata":{
  "generateName":"nnf-dm-node-",
  "namespace":"rabbit-01",
  "labels":{
    "dataworkflowservices.github.io/owner.kind":"Workflow",
    "dataworkflowservices.github.io/owner.name":"job7",
    "dataworkflowservices.github.io/owner.namespace":"default",
    "dataworkflowservices.github.io/owner.uid":"11110000-0000-4000-8000-00000000000a",
    "dataworkflowservices.github.io/workflow.name":"job7",
    "dataworkflowservices.github.io/workflow.namespace":"default",
    "dataworkflowservices.github.io/workflow.uid":"11110000-0000-4000-8000-00000000000a",
    "dm.cray.hpe.com/initiator":"compute-01",
    "nnf.cray.hpe.com/teardown_state":"PostRun"}},
"spec":{
  "source":{
    "path":"/mnt/nnf/11110000-0000-4000-8000-00000000000a-0/rabbit-01-3/out/",
    "storageReference":{"kind":"NnfNodeStorage","name":"default-job7-0-gfs2-0","namespace":"rabbit-01"}},
  "destination":{"path":"/lus/global/alice/out/"},
  "userId":1001,
  "groupId":100,
  "profileReference":{"kind":"NnfDataMovementProfile","name":"default","namespace":"nnf-system"},
  "userConfig":{"slots":8}}}`

// unwrap joins lines that are split for readability.
func unwrap(s string) string {
	var out strings.Builder
	for l := range strings.Lines(s) {
		out.WriteString(strings.TrimSpace(l))
	}
	return out.String()
}

func TestDataMovementJSON(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*DataMovement)
		want   func(string) string
	}{
		{"example", func(*DataMovement) {}, func(s string) string { return s }},
		{"no options: userConfig is written", func(d *DataMovement) { d.Spec.UserConfig = DataMovementConfig{} },
			func(s string) string { return strings.Replace(s, `{"slots":8}`, `{}`, 1) }},
		{"no slots differs from slots of the profile",
			func(d *DataMovement) { *d.Spec.UserConfig.Slots = 0; d.Spec.UserConfig.MaxSlots = new(int32) },
			func(s string) string { return strings.Replace(s, `{"slots":8}`, `{"slots":0,"maxSlots":0}`, 1) }},
		{"root is omitted", func(d *DataMovement) { d.Spec.UserID, d.Spec.GroupID = 0, 0 },
			func(s string) string { return strings.Replace(s, `"userId":1001,"groupId":100,`, ``, 1) }},
		{"cancelled", func(d *DataMovement) { d.Spec.Cancel = true },
			func(s string) string {
				return strings.Replace(s, `"groupId":100,`, `"groupId":100,"cancel":true,`, 1)
			}},
		{"lustre", func(d *DataMovement) {
			d.Spec.Destination.StorageReference = dws.ObjectReference{Kind: "LustreFileSystem", Name: "global", Namespace: "default"}
		}, func(s string) string {
			return strings.Replace(s, `"/lus/global/alice/out/"`, `"/lus/global/alice/out/","storageReference":{"kind":"LustreFileSystem","name":"global","namespace":"default"}`, 1)
		}},
		{"all options", func(d *DataMovement) {
			d.Spec.UserConfig = DataMovementConfig{Dryrun: true, MPIRunOptions: "-q", DCPOptions: "-p", LogStdout: true, StoreStdout: true}
		}, func(s string) string {
			return strings.Replace(s, `{"slots":8}`, `{"dryrun":true,"mpirunOptions":"-q","dcpOptions":"-p","logStdout":true,"storeStdout":true}`, 1)
		}},
	} {
		d := example()
		c.change(d)
		got, err := json.Marshal(d)
		want := c.want(unwrap(exampleJSON))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", c.name, err, got, want)
		}
		back := &DataMovement{}
		if err := json.Unmarshal([]byte(want), back); err != nil || !reflect.DeepEqual(back, d) {
			t.Errorf("%s: is decoded as %+v, %v", c.name, back, err)
		}
	}
}

// A status as written by the rabbit, with every field and unknown ones.
func TestDataMovementStatus(t *testing.T) {
	const in = `{"status": {"state": "Finished", "status": "Failed", "message": "exit status 1: x", "restarts": 2, "fromTheFuture": {},
	  "startTime": "2025-04-01T16:46:36.535519Z", "endTime": "2025-04-01T11:46:40.000000-05:00",
	  "commandStatus": {"command": "dcp a b", "elapsedTime": "1m30.25s", "progress": 0, "lastMessage": "l\n",
	    "lastMessageTime": "2025-04-01T16:46:37.000001Z", "seconds": "1.5", "items": 4, "directories": 1, "files": 2, "links": 0,
	    "data": "1.5 GiB", "rate": "120 MiB/s"},
	  "error": {"type": "User", "severity": "Fatal", "debugMessage": "d", "userMessage": "u"}},
	  "spec": {"userId": 4294967294, "groupId": -1}}`
	d := &DataMovement{}
	if err := json.Unmarshal([]byte(in), d); err != nil {
		t.Fatal(err)
	}
	n := func(v int32) *int32 { return &v }
	at := func(sec, usec int) *MicroTime {
		return &MicroTime{time.Date(2025, 4, 1, 16, 46, sec, usec*1000, time.UTC)}
	}
	s := d.Status
	if !s.EndTime.Equal(at(40, 0).Time) {
		t.Errorf("end time %v", s.EndTime)
	}
	s.EndTime = nil
	want := DataMovementStatus{
		State: MovementFinished, Status: MovementFailed, Message: "exit status 1: x", Restarts: 2, StartTime: at(36, 535519),
		CommandStatus: &DataMovementCommandStatus{
			Command: "dcp a b", ElapsedTime: Duration{90*time.Second + 250*time.Millisecond}, Progress: n(0), LastMessage: "l\n",
			LastMessageTime: at(37, 1), Seconds: "1.5", Items: n(4), Directories: n(1), Files: n(2), Links: n(0),
			Data: "1.5 GiB", Rate: "120 MiB/s",
		},
		Error: &dws.ResourceError{Type: dws.User, Severity: dws.Fatal, DebugMessage: "d", UserMessage: "u"},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v\nwant %+v", s, want)
	}
	if d.Spec.UserID != 4294967294 || d.Spec.GroupID != -1 {
		t.Errorf("ids %d, %d", d.Spec.UserID, d.Spec.GroupID)
	}
}

// Before the rabbit has started, the API server sends no status or an empty one.
func TestDataMovementWithoutStatus(t *testing.T) {
	for _, in := range []string{`{}`, `{"status":{}}`, `{"status":{"startTime":null,"commandStatus":null}}`} {
		d := &DataMovement{}
		if err := json.Unmarshal([]byte(in), d); err != nil || !reflect.DeepEqual(d.Status, DataMovementStatus{}) {
			t.Errorf("%s: %+v, %v", in, d.Status, err)
		}
	}
}

// An empty status is encoded without fields.
func TestEmptyStatusJSON(t *testing.T) {
	got, err := json.Marshal(DataMovementStatus{CommandStatus: &DataMovementCommandStatus{}})
	if want := `{"commandStatus":{}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestDataMovementProfile(t *testing.T) {
	const in = `{"metadata": {"name": "default", "namespace": "nnf-system"}, "data": {"default": true, "slots": 8, "maxSlots": 0,
	  "command": "dcp $SRC $DEST", "storeStdout": true, "progressIntervalSeconds": 5, "createDestDir": true, "statCommand": "stat"}}`
	p := &DataMovementProfile{}
	if err := json.Unmarshal([]byte(in), p); err != nil {
		t.Fatal(err)
	}
	want := DataMovementProfileData{Default: true, Slots: 8, Command: "dcp $SRC $DEST", StoreStdout: true, ProgressIntervalSeconds: 5, CreateDestDir: true}
	if p.Name != "default" || p.Data != want {
		t.Errorf("%+v", p)
	}
}
