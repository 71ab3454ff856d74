// Package nnf holds the objects of nnf.cray.hpe.com that the daemons read, with
// just the fields that they touch.
//
// It must not know who fetches these objects or what the commands in them do.
package nnf

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// StorageProfile is an NnfStorageProfile: the administrator's command lines for
// one kind of storage. Content is under data.
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

// BlockDeviceCommands says how volume groups are laid out and activated.
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

// FileSystemCommands says how the file system is mounted on computes. An empty
// string disables the step; only what was mounted is unmounted in any case.
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

// LustreStorage is the Lustre section; only the client side matters here.
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

// StorageOwner is an NnfStorage of which only the labels are read: they say
// who owns it.
type StorageOwner struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
}
