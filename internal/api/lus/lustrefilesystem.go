// Package lus holds the object of lus.cray.hpe.com that the daemons read, with
// just the fields that they touch.
//
// It must not know who fetches it or what Lustre is.
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

// LustreFileSystemSpec has the file system's name and where it is mounted, on
// computes and rabbits alike.
type LustreFileSystemSpec struct {
	Name      string `json:"name"`
	MountRoot string `json:"mountRoot"`
}
