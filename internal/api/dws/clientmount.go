// Package dws has the objects of dataworkflowservices.github.io that the daemons read
// and write, with only the fields that they use, and the structured error that workload
// managers evaluate.
//
// It must not know how these objects are fetched or what a mount is.
package dws

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// State is a desired or actual state of a mount.
type State string

// The states in the schema.
const (
	Mounted   State = "mounted"
	Unmounted State = "unmounted"
)

// File-system types of spec.mounts[].type.
const (
	TypeLustre = "lustre"
	TypeXFS    = "xfs"
	TypeGFS2   = "gfs2"
	TypeRaw    = "none"
)

// Kinds of spec.mounts[].device.type.
const (
	DeviceLustre    = "lustre"
	DeviceLVM       = "lvm"
	DeviceReference = "reference"
)

// ClientMount requests a set of mounts from one compute node. The rabbit writes spec,
// the node writes status.
type ClientMount struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ClientMountSpec   `json:"spec"`
	Status ClientMountStatus `json:"status"`
}

// ClientMountSpec is the desired state.
type ClientMountSpec struct {
	Node         string  `json:"node"`
	DesiredState State   `json:"desiredState"`
	Mounts       []Mount `json:"mounts"`
}

// Mount is one entry of spec.mounts. UserID and GroupID are wider than Linux IDs, so
// that invalid values can be read and refused.
type Mount struct {
	MountPath      string `json:"mountPath"`
	UserID         int64  `json:"userID,omitempty"`
	GroupID        int64  `json:"groupID,omitempty"`
	SetPermissions bool   `json:"setPermissions"`
	Type           string `json:"type"`
	TargetType     string `json:"targetType"`
	Device         Device `json:"device"`
}

// Device is the device of a mount. The blocks are pointers, because they are missing in
// hostile or broken objects.
type Device struct {
	Type            string           `json:"type"`
	Lustre          *LustreDevice    `json:"lustre,omitempty"`
	LVM             *LVMDevice       `json:"lvm,omitempty"`
	DeviceReference *ReferenceDevice `json:"deviceReference,omitempty"`
}

// LustreDevice names a Lustre file system and its management servers.
type LustreDevice struct {
	FileSystemName string `json:"fileSystemName"`
	MGSAddresses   string `json:"mgsAddresses"`
}

// LVMDevice lists the NVMe namespaces below a volume group.
type LVMDevice struct {
	DeviceType string          `json:"deviceType"`
	NVMeInfo   []NVMeNamespace `json:"nvmeInfo,omitempty"`
}

// NVMeNamespace identifies one namespace. DeviceSerial holds the subsystem's
// NQN, not a serial number; NamespaceID is the decimal NSID.
type NVMeNamespace struct {
	DeviceSerial string `json:"deviceSerial"`
	NamespaceID  string `json:"namespaceID"`
}

// ReferenceDevice points at the rabbit's object; Data is the allocation index.
type ReferenceDevice struct {
	ObjectReference ObjectReference `json:"objectReference"`
	Data            int             `json:"data,omitempty"`
}

// ObjectReference has the fields of a Kubernetes object reference that the daemons use.
type ObjectReference struct {
	Kind      string `json:"kind,omitempty"`
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// ClientMountStatus is the state that the node reports, with one entry per mount of the
// spec, in the same order.
type ClientMountStatus struct {
	Mounts   []MountStatus  `json:"mounts"`
	AllReady bool           `json:"allReady"`
	Error    *ResourceError `json:"error,omitempty"`
}

// MountStatus is the target state, and whether it has been reached.
type MountStatus struct {
	State State `json:"state"`
	Ready bool  `json:"ready"`
}

// DeepCopyObject implements runtime.Object.
func (c *ClientMount) DeepCopyObject() runtime.Object {
	out := *c
	c.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.Mounts = slices.Clone(c.Spec.Mounts)
	for i := range out.Spec.Mounts {
		d := &out.Spec.Mounts[i].Device
		d.Lustre, d.DeviceReference = clone(d.Lustre), clone(d.DeviceReference)
		if d.LVM = clone(d.LVM); d.LVM != nil {
			d.LVM.NVMeInfo = slices.Clone(d.LVM.NVMeInfo)
		}
	}
	out.Status.Mounts = slices.Clone(c.Status.Mounts)
	out.Status.Error = clone(c.Status.Error)
	return &out
}

// Label returns the value of a label, or "" if it is absent.
func (c *ClientMount) Label(key string) string { return c.Labels[key] }

// SameLabels reports whether two objects have the same labels.
func (c *ClientMount) SameLabels(o *ClientMount) bool { return maps.Equal(c.Labels, o.Labels) }

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
