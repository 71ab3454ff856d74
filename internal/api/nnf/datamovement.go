package nnf

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Kinds in references, and where the objects of data movement live (contract
// nnf-dm.md 4.2).
const (
	KindDataMovement        = "NnfDataMovement"
	KindDataMovementProfile = "NnfDataMovementProfile"

	NamespaceDataMovement = "nnf-dm-system"
	NamespaceProfiles     = "nnf-system"
)

// Values of status.state of a DataMovement; empty before the rabbit has begun.
const (
	MovementStarting = "Starting"
	MovementRunning  = "Running"
	MovementFinished = "Finished"
)

// Values of status.status of a DataMovement; empty until it has ended.
const (
	MovementSuccess   = "Success"
	MovementFailed    = "Failed"
	MovementInvalid   = "Invalid"
	MovementCancelled = "Cancelled"
)

// DataMovement is an NnfDataMovement: one copy that the rabbit executes
// (contract nnf-dm.md 4.2.6, 6). Its spec is written here, its status there.
type DataMovement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DataMovementSpec   `json:"spec"`
	Status DataMovementStatus `json:"status,omitzero"`
}

// DataMovementSpec is what is wanted. An id of 0 is left out on the wire.
type DataMovementSpec struct {
	Source           DataMovementEnd     `json:"source"`
	Destination      DataMovementEnd     `json:"destination"`
	UserID           int64               `json:"userId,omitempty"`
	GroupID          int64               `json:"groupId,omitempty"`
	Cancel           bool                `json:"cancel,omitempty"`
	ProfileReference dws.ObjectReference `json:"profileReference,omitzero"`
	UserConfig       DataMovementConfig  `json:"userConfig"`
}

// DataMovementEnd is one end of a copy.
type DataMovementEnd struct {
	Path             string              `json:"path"`
	StorageReference dws.ObjectReference `json:"storageReference,omitzero"`
}

// DataMovementConfig is what the user may choose. Slots are pointers: 0 means
// none, absent means as in the profile.
type DataMovementConfig struct {
	Dryrun        bool   `json:"dryrun,omitempty"`
	MPIRunOptions string `json:"mpirunOptions,omitempty"`
	DCPOptions    string `json:"dcpOptions,omitempty"`
	LogStdout     bool   `json:"logStdout,omitempty"`
	StoreStdout   bool   `json:"storeStdout,omitempty"`
	Slots         *int32 `json:"slots,omitempty"`
	MaxSlots      *int32 `json:"maxSlots,omitempty"`
}

// DataMovementStatus is how far the copy is.
type DataMovementStatus struct {
	State         string                     `json:"state,omitempty"`
	Status        string                     `json:"status,omitempty"`
	Message       string                     `json:"message,omitempty"`
	StartTime     *metav1.MicroTime          `json:"startTime,omitempty"`
	EndTime       *metav1.MicroTime          `json:"endTime,omitempty"`
	Restarts      int                        `json:"restarts,omitempty"`
	CommandStatus *DataMovementCommandStatus `json:"commandStatus,omitempty"`
	Error         *dws.ResourceError         `json:"error,omitempty"`
}

// DataMovementCommandStatus is what the copying command says of itself.
type DataMovementCommandStatus struct {
	Command         string            `json:"command,omitempty"`
	Progress        *int32            `json:"progress,omitempty"`
	ElapsedTime     metav1.Duration   `json:"elapsedTime,omitzero"`
	LastMessage     string            `json:"lastMessage,omitempty"`
	LastMessageTime *metav1.MicroTime `json:"lastMessageTime,omitempty"`
	Seconds         string            `json:"seconds,omitempty"`
	Items           *int32            `json:"items,omitempty"`
	Directories     *int32            `json:"directories,omitempty"`
	Files           *int32            `json:"files,omitempty"`
	Links           *int32            `json:"links,omitempty"`
	Data            string            `json:"data,omitempty"`
	Rate            string            `json:"rate,omitempty"`
}

// DataMovementList is a list as the API server sends it.
type DataMovementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataMovement `json:"items"`
}

// DataMovementProfile is an NnfDataMovementProfile: the administrator's command
// for copying. Content is under data.
type DataMovementProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Data DataMovementProfileData `json:"data"`
}

// DataMovementProfileData is the part that matters on a compute.
type DataMovementProfileData struct {
	Default bool   `json:"default"`
	Pinned  bool   `json:"pinned"`
	Command string `json:"command,omitempty"`
}

// DataMovementProfileList is a list as the API server sends it.
type DataMovementProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataMovementProfile `json:"items"`
}
