package dws

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The objects of this group that the daemons only read.

// KindWorkflow is the kind in the owner labels of objects that belong to a workflow.
const KindWorkflow = "Workflow"

// The states of a Workflow that the daemons use, and the status of a state that is
// reached. Jobs run in PreRun; PostRun waits for their copies.
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

// WorkflowSpec has the owner of the job. The IDs are wider than Linux IDs, so that
// invalid values can be read and refused.
type WorkflowSpec struct {
	UserID  int64 `json:"userID"`
	GroupID int64 `json:"groupID"`
}

// WorkflowStatus is the state of a workflow.
type WorkflowStatus struct {
	State  string `json:"state,omitempty"`
	Status string `json:"status,omitempty"`
	Ready  bool   `json:"ready"`
}

// NamespaceSystemConfiguration is the namespace of the SystemConfiguration.
const NamespaceSystemConfiguration = "default"

// TypeRabbit is the only type of storage node.
const TypeRabbit = "Rabbit"

// SystemConfiguration assigns compute nodes to rabbits. An administrator writes it.
type SystemConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SystemConfigurationSpec `json:"spec"`
}

// SystemConfigurationSpec lists the nodes of the system. External computes have no
// rabbit and can use Lustre only.
type SystemConfigurationSpec struct {
	StorageNodes         []StorageNode  `json:"storageNodes,omitempty"`
	ExternalComputeNodes []ExternalNode `json:"externalComputeNodes,omitempty"`
}

// StorageNode is a rabbit and its computes. Its name is also the namespace of its
// objects.
type StorageNode struct {
	Type           string          `json:"type"`
	Name           string          `json:"name"`
	ComputesAccess []ComputeAccess `json:"computesAccess,omitempty"`
}

// ComputeAccess is a compute node in one of the slots, 0 to 15, of a rabbit.
type ComputeAccess struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
}

// ExternalNode is a compute node without a rabbit.
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

// AllocationSet has the locations of one kind of target, for example "ost".
type AllocationSet struct {
	Label   string `json:"label"`
	Storage []struct {
		Name            string `json:"name"`
		AllocationCount int    `json:"allocationCount"`
	} `json:"storage,omitempty"`
}
