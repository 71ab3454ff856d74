package dws

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NamespaceSystemConfiguration is where the SystemConfiguration is.
const NamespaceSystemConfiguration = "default"

// TypeRabbit is the one type of storage node that there is.
const TypeRabbit = "Rabbit"

// SystemConfiguration says which compute hangs on which rabbit (contract
// kubernetes.md 2.3). An administrator writes it.
type SystemConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SystemConfigurationSpec `json:"spec"`
}

// SystemConfigurationSpec lists the nodes of the system. External computes hang
// on no rabbit; they reach Lustre only.
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
