// Package lus has the object of lus.cray.hpe.com that the daemons read, with only the
// fields that they use.
//
// It must not know how the object is fetched or what Lustre is.
package lus

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindLustreFileSystem is the kind in references to a LustreFileSystem.
const KindLustreFileSystem = "LustreFileSystem"

// LustreFileSystem is a global Lustre file system. An administrator writes it.
type LustreFileSystem struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec LustreFileSystemSpec `json:"spec"`
}

// LustreFileSystemSpec has the name of the file system and its mount point, which is the
// same on compute nodes and rabbits.
type LustreFileSystemSpec struct {
	Name      string `json:"name"`
	MountRoot string `json:"mountRoot"`
}
