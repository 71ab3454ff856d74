package dws

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Servers lists the rabbits that serve one allocation (contract kubernetes.md
// 2.6). A workload manager writes it.
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
