// Package nnf has the objects of nnf.cray.hpe.com that the daemons use, with only the
// fields that they use.
//
// It must not know how these objects are fetched or what the commands in them do.
package nnf

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// StorageProfile is an NnfStorageProfile: the administrator's command lines for
// one kind of storage. The content is under data.
type StorageProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Data StorageProfileData `json:"data"`
}

// StorageProfileData has one section per file-system type.
type StorageProfileData struct {
	Pinned bool          `json:"pinned"`
	Raw    Storage       `json:"rawStorage"`
	XFS    Storage       `json:"xfsStorage"`
	GFS2   Storage       `json:"gfs2Storage"`
	Lustre LustreStorage `json:"lustreStorage"`
}

// Storage is the section of an LVM-backed type.
type Storage struct {
	BlockDevice      BlockDeviceCommands `json:"blockDeviceCommands"`
	FileSystem       FileSystemCommands  `json:"fileSystemCommands"`
	VariableOverride map[string]string   `json:"variableOverride,omitempty"`
}

// BlockDeviceCommands has the layout of volume groups and the commands that activate
// them.
type BlockDeviceCommands struct {
	SharedVG bool `json:"sharedVg"`
	Compute  struct {
		VGChange struct {
			LockStart string `json:"lockStart,omitempty"`
			LockStop  string `json:"lockStop,omitempty"`
		} `json:"vgChange"`
		LVChange struct {
			Activate   string `json:"activate,omitempty"`
			Deactivate string `json:"deactivate,omitempty"`
		} `json:"lvChange"`
		User struct {
			PreActivate    []string `json:"preActivate,omitempty"`
			PostActivate   []string `json:"postActivate,omitempty"`
			PreDeactivate  []string `json:"preDeactivate,omitempty"`
			PostDeactivate []string `json:"postDeactivate,omitempty"`
		} `json:"userCommands"`
	} `json:"computeCommands"`
}

// FileSystemCommands has the commands that mount the file system on compute nodes. An
// empty command disables its step, but a mounted file system is always unmounted.
type FileSystemCommands struct {
	Compute struct {
		Mount   string `json:"mount,omitempty"`
		Unmount string `json:"unmount,omitempty"`
		User    struct {
			PreMount    []string `json:"preMount,omitempty"`
			PostMount   []string `json:"postMount,omitempty"`
			PreUnmount  []string `json:"preUnmount,omitempty"`
			PostUnmount []string `json:"postUnmount,omitempty"`
		} `json:"userCommands"`
	} `json:"computeCommands"`
}

// LustreStorage is the Lustre section, with the options for clients.
type LustreStorage struct {
	Client struct {
		VariableOverride map[string]string `json:"variableOverride,omitempty"`
		CommandLines     struct {
			Mount       string   `json:"mountCompute,omitempty"`
			Unmount     string   `json:"unmountCompute,omitempty"`
			PreMount    []string `json:"computePreMount,omitempty"`
			PostMount   []string `json:"computePostMount,omitempty"`
			PreUnmount  []string `json:"computePreUnmount,omitempty"`
			PostUnmount []string `json:"computePostUnmount,omitempty"`
		} `json:"commandlines"`
	} `json:"clientOptions"`
	OST struct {
		VariableOverride map[string]string `json:"variableOverride,omitempty"`
	} `json:"ostOptions"`
}

// StorageOwner is an NnfStorage with its metadata only: its labels identify the owner.
type StorageOwner struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
}
