// Package lus holds the object of lus.cray.hpe.com that the daemons read, with
// just the fields that they touch.
//
// It must not know who fetches it.
package lus

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindLustreFileSystem is the kind in references to a LustreFileSystem.
const KindLustreFileSystem = "LustreFileSystem"

// LustreFileSystem is a global Lustre file system (contract kubernetes.md 2.6).
type LustreFileSystem struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec LustreFileSystemSpec `json:"spec"`
}

// LustreFileSystemSpec says where rabbits and computes mount it.
type LustreFileSystemSpec struct {
	Name      string `json:"name,omitempty"`
	MountRoot string `json:"mountRoot"`
}

// LustreFileSystemList is a list as the API server sends it.
type LustreFileSystemList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LustreFileSystem `json:"items"`
}
