package dws

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The objects of this group that the daemons only read.

// KindWorkflow is the kind in the owner labels of what belongs to a workflow.
const KindWorkflow = "Workflow"

// The states of a Workflow in which we are interested, and the status of one
// that is reached. Jobs run in PreRun; what they copy ends in PostRun.
const (
	StatePreRun     = "PreRun"
	StatePostRun    = "PostRun"
	StatusCompleted = "Completed"
)

// Workflow is the storage of one job through its states. It has no status
// subresource.
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

// NamespaceSystemConfiguration is where the SystemConfiguration is.
const NamespaceSystemConfiguration = "default"

// TypeRabbit is the one type of storage node that there is.
const TypeRabbit = "Rabbit"

// SystemConfiguration says which rabbit serves which compute. An administrator
// writes it.
type SystemConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SystemConfigurationSpec `json:"spec"`
}

// SystemConfigurationSpec lists the nodes of the system. External computes
// have no rabbit; they reach Lustre only.
type SystemConfigurationSpec struct {
	StorageNodes         []StorageNode  `json:"storageNodes,omitempty"`
	ExternalComputeNodes []ExternalNode `json:"externalComputeNodes,omitempty"`
}

// StorageNode is a rabbit and its computes. Its name is also the namespace of
// what is done on it.
type StorageNode struct {
	Type           string          `json:"type"`
	Name           string          `json:"name"`
	ComputesAccess []ComputeAccess `json:"computesAccess,omitempty"`
}

// ComputeAccess is a compute in a slot, 0 to 15, of a rabbit.
type ComputeAccess struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
}

// ExternalNode is a compute without a rabbit.
type ExternalNode struct {
	Name string `json:"name"`
}

// Servers lists the rabbits that serve one allocation. A workload manager writes
// it.
type Servers struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		AllocationSets []AllocationSet `json:"allocationSets,omitempty"`
	} `json:"spec"`
}

// AllocationSet is one kind of target, for example "ost", and where it is.
type AllocationSet struct {
	Label   string `json:"label"`
	Storage []struct {
		Name            string `json:"name"`
		AllocationCount int    `json:"allocationCount"`
	} `json:"storage,omitempty"`
}
