package nnf

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// KindDataMovement is the kind of a DataMovement.
const KindDataMovement = "NnfDataMovement"

// NamespaceDataMovement is where data movements of Lustre storage are. Those of
// a rabbit's own storage are in the namespace with the rabbit's name.
const NamespaceDataMovement = "nnf-dm-system"

// What the names of data movements begin with. The name alone tells where one
// is: the second prefix means the rabbit's namespace (contract nnf-dm.md 4.3).
const (
	PrefixMovement     = "nnf-dm-"
	PrefixNodeMovement = "nnf-dm-node-"
)

// Values of status.state of a DataMovement; empty before the rabbit has begun.
// Finished is the one sure sign of the end: an invalid one has no end time.
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

// DataMovement is one copy on the rabbit (contract nnf-dm.md 4.2.6, 6). The
// compute writes spec, the rabbit writes status.
type DataMovement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DataMovementSpec   `json:"spec"`
	Status DataMovementStatus `json:"status,omitzero"`
}

// DataMovementSpec is what is wanted. UserID and GroupID are wider than Linux
// identities, so that a value that is none can be read and refused; 0 is not
// written. UserConfig is always written, Cancel only when true.
type DataMovementSpec struct {
	Source           DataMovementEnd     `json:"source"`
	Destination      DataMovementEnd     `json:"destination"`
	UserID           int64               `json:"userId,omitempty"`
	GroupID          int64               `json:"groupId,omitempty"`
	Cancel           bool                `json:"cancel,omitempty"`
	ProfileReference dws.ObjectReference `json:"profileReference,omitzero"`
	UserConfig       DataMovementConfig  `json:"userConfig"`
}

// DataMovementEnd is one end of a copy, as the rabbit sees it. A destination in
// a file system that nobody looked up has no reference.
type DataMovementEnd struct {
	Path             string              `json:"path"`
	StorageReference dws.ObjectReference `json:"storageReference,omitzero"`
}

// DataMovementConfig is what the user has chosen. Slots and MaxSlots are nil
// for what the profile says, and 0 for none.
type DataMovementConfig struct {
	Dryrun        bool   `json:"dryrun,omitempty"`
	MPIRunOptions string `json:"mpirunOptions,omitempty"`
	DCPOptions    string `json:"dcpOptions,omitempty"`
	LogStdout     bool   `json:"logStdout,omitempty"`
	StoreStdout   bool   `json:"storeStdout,omitempty"`
	Slots         *int32 `json:"slots,omitempty"`
	MaxSlots      *int32 `json:"maxSlots,omitempty"`
}

// DataMovementStatus is what the rabbit reports.
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

// DataMovementCommandStatus is what the copying command says. Numbers that are
// not known are nil. Seconds, Data and Rate are texts of the command.
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

// DataMovementList is a list as the API server sends it.
type DataMovementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataMovement `json:"items"`
}
