package dws

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestWorkflow(t *testing.T) {
	const in = `{"metadata": {"name": "job7", "namespace": "default", "uid": "u"},
	  "spec": {"userID": 4294967294, "groupID": 100, "jobID": "f9Tk", "dwDirectives": ["#DW x"]},
	  "status": {"state": "PreRun", "status": "Completed", "ready": true, "env": {"DW_JOB_x": "/mnt"}}}`
	w := &Workflow{}
	if err := json.Unmarshal([]byte(in), w); err != nil {
		t.Fatal(err)
	}
	if w.Name != "job7" || w.UID != "u" || w.Spec != (WorkflowSpec{4294967294, 100}) ||
		w.Status != (WorkflowStatus{StatePreRun, StatusCompleted, true}) {
		t.Errorf("%+v", w)
	}
}

// A new workflow has no status and is not ready.
func TestWorkflowWithoutStatus(t *testing.T) {
	w := &Workflow{}
	if err := json.Unmarshal([]byte(`{"spec": {"userID": -1, "groupID": 0}}`), w); err != nil {
		t.Fatal(err)
	}
	if w.Status != (WorkflowStatus{}) || w.Spec.UserID != -1 {
		t.Errorf("%+v", w)
	}
}

func TestSystemConfiguration(t *testing.T) {
	const in = `{"spec": {"ports": [20000, "30000-30009"], "portsCooldownInSeconds": 60,
	  "storageNodes": [{"type": "Rabbit", "name": "rabbit-01", "computesAccess": [{"name": "compute-01", "index": 0}, {"name": "compute-16", "index": 15}]},
	    {"type": "Other", "name": "rabbit-02"}],
	  "externalComputeNodes": [{"name": "login-1"}]}, "status": {"ready": true}}`
	c := &SystemConfiguration{}
	if err := json.Unmarshal([]byte(in), c); err != nil {
		t.Fatal(err)
	}
	want := SystemConfigurationSpec{
		StorageNodes: []StorageNode{
			{TypeRabbit, "rabbit-01", []ComputeAccess{{"compute-01", 0}, {"compute-16", 15}}},
			{"Other", "rabbit-02", nil},
		},
		ExternalComputeNodes: []ExternalNode{{"login-1"}},
	}
	if !reflect.DeepEqual(c.Spec, want) {
		t.Errorf("%+v", c.Spec)
	}
}
