package nnf

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// StorageOwner is an NnfStorage of which only the labels are read: they say
// who owns it.
type StorageOwner struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
}
