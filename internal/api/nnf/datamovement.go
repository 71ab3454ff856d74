package nnf

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// KindDataMovement is the kind of a DataMovement.
const KindDataMovement = "NnfDataMovement"

// NamespaceDataMovement is the namespace of data movements from Lustre storage. Those
// from a rabbit's own storage are in the namespace with the rabbit's name.
const NamespaceDataMovement = "nnf-dm-system"

// Prefixes of the names of data movements. The prefix determines the namespace: the
// second one means the rabbit's namespace.
const (
	PrefixMovement     = "nnf-dm-"
	PrefixNodeMovement = "nnf-dm-node-"
)

// Values of status.state of a DataMovement; empty before the rabbit has started it.
// Only Finished reliably indicates the end: an invalid data movement has no end time.
const (
	MovementStarting = "Starting"
	MovementRunning  = "Running"
	MovementFinished = "Finished"
)

// Values of status.status of a DataMovement; empty before it has ended.
const (
	MovementSuccess   = "Success"
	MovementFailed    = "Failed"
	MovementInvalid   = "Invalid"
	MovementCancelled = "Cancelled"
)

// DataMovement is one copy on the rabbit. The compute writes spec, the rabbit
// writes status.
type DataMovement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DataMovementSpec   `json:"spec"`
	Status DataMovementStatus `json:"status,omitzero"`
}

// DataMovementSpec is the request. UserID and GroupID are wider than Linux IDs, so that
// invalid values can be read and refused; 0 is not written. UserConfig is always
// written, Cancel only if true.
type DataMovementSpec struct {
	Source           DataMovementEnd     `json:"source"`
	Destination      DataMovementEnd     `json:"destination"`
	UserID           int64               `json:"userId,omitempty"`
	GroupID          int64               `json:"groupId,omitempty"`
	Cancel           bool                `json:"cancel,omitempty"`
	ProfileReference dws.ObjectReference `json:"profileReference,omitzero"`
	UserConfig       DataMovementConfig  `json:"userConfig"`
}

// DataMovementEnd is the source or the destination of a copy, as a path on the rabbit.
// The destination of a gfs2 movement has no reference.
type DataMovementEnd struct {
	Path             string              `json:"path"`
	StorageReference dws.ObjectReference `json:"storageReference,omitzero"`
}

// DataMovementConfig has the options of the user. If Slots or MaxSlots is nil, the value
// of the profile applies; 0 means none.
type DataMovementConfig struct {
	Dryrun        bool   `json:"dryrun,omitempty"`
	MPIRunOptions string `json:"mpirunOptions,omitempty"`
	DCPOptions    string `json:"dcpOptions,omitempty"`
	LogStdout     bool   `json:"logStdout,omitempty"`
	StoreStdout   bool   `json:"storeStdout,omitempty"`
	Slots         *int32 `json:"slots,omitempty"`
	MaxSlots      *int32 `json:"maxSlots,omitempty"`
}

// DataMovementStatus is the status that the rabbit reports.
type DataMovementStatus struct {
	State         string                     `json:"state,omitempty"`
	Status        string                     `json:"status,omitempty"`
	Message       string                     `json:"message,omitempty"`
	StartTime     *MicroTime                 `json:"startTime,omitempty"`
	EndTime       *MicroTime                 `json:"endTime,omitempty"`
	Restarts      int                        `json:"restarts,omitempty"`
	CommandStatus *DataMovementCommandStatus `json:"commandStatus,omitempty"`
	Error         *dws.ResourceError         `json:"error,omitempty"`
}

// DataMovementCommandStatus is the progress of the copying command. Unknown numbers are
// nil. Seconds, Data and Rate are texts of the command.
type DataMovementCommandStatus struct {
	Command         string     `json:"command,omitempty"`
	ElapsedTime     Duration   `json:"elapsedTime,omitzero"`
	Progress        *int32     `json:"progress,omitempty"`
	LastMessage     string     `json:"lastMessage,omitempty"`
	LastMessageTime *MicroTime `json:"lastMessageTime,omitempty"`
	Seconds         string     `json:"seconds,omitempty"`
	Items           *int32     `json:"items,omitempty"`
	Directories     *int32     `json:"directories,omitempty"`
	Files           *int32     `json:"files,omitempty"`
	Links           *int32     `json:"links,omitempty"`
	Data            string     `json:"data,omitempty"`
	Rate            string     `json:"rate,omitempty"`
}

// KindDataMovementProfile is the kind in references to a profile.
const KindDataMovementProfile = "NnfDataMovementProfile"

// NamespaceProfiles is the namespace of the administrator's profiles. Pinned copies are
// in other namespaces; data movements from compute nodes do not use them.
const NamespaceProfiles = "nnf-system"

// DataMovementProfile is an administrator's configuration of copies. The content is
// under data.
type DataMovementProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Data DataMovementProfileData `json:"data"`
}

// DataMovementProfileData has the flag of the default profile. The other fields are for
// the rabbit: the command with its variables, the slots of each host in the MPI host
// file (0 for none), and the interval in seconds at which the rabbit reads the output (0
// for never). The API server sets the defaults of missing fields.
type DataMovementProfileData struct {
	Default                 bool   `json:"default,omitempty"`
	Pinned                  bool   `json:"pinned,omitempty"`
	Slots                   int    `json:"slots"`
	MaxSlots                int    `json:"maxSlots"`
	Command                 string `json:"command"`
	LogStdout               bool   `json:"logStdout,omitempty"`
	StoreStdout             bool   `json:"storeStdout,omitempty"`
	ProgressIntervalSeconds int    `json:"progressIntervalSeconds,omitempty"`
	CreateDestDir           bool   `json:"createDestDir"`
}
