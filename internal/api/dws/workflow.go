package dws

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindWorkflow is the kind in the owner labels of what belongs to a workflow.
const KindWorkflow = "Workflow"

// The states of a Workflow in which we are interested, and the status of one
// that is reached. Jobs run in PreRun; what they copy ends in PostRun.
const (
	StatePreRun     = "PreRun"
	StatePostRun    = "PostRun"
	StatusCompleted = "Completed"
)

// Workflow is the storage of one job through its states (contract kubernetes.md
// 2.2). It has no status subresource; nothing of it is written here.
type Workflow struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   WorkflowSpec   `json:"spec"`
	Status WorkflowStatus `json:"status"`
}

// WorkflowSpec says whose job it is. The ids are wider than Linux identities,
// so that a value that is none can be read and refused.
type WorkflowSpec struct {
	UserID  int64 `json:"userID"`
	GroupID int64 `json:"groupID"`
}

// WorkflowStatus is how far the workflow is.
type WorkflowStatus struct {
	State  string `json:"state,omitempty"`
	Status string `json:"status,omitempty"`
	Ready  bool   `json:"ready"`
}
