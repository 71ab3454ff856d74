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
// is: the second prefix means the rabbit's namespace.
const (
	PrefixMovement     = "nnf-dm-"
	PrefixNodeMovement = "nnf-dm-node-"
)

// Values of status.state of a DataMovement; empty before the rabbit has started.
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

// DataMovement is one copy on the rabbit. The compute writes spec, the rabbit
// writes status.
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

// DataMovementEnd is one end of a copy, as the rabbit sees it. The
// destination of a gfs2 movement has no reference.
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

// KindDataMovementProfile is the kind in references to a profile.
const KindDataMovementProfile = "NnfDataMovementProfile"

// NamespaceProfiles is where administrators keep profiles. Pinned copies are in
// other namespaces and not for data movements of computes.
const NamespaceProfiles = "nnf-system"

// DataMovementProfile is an administrator's way of copying. Content is under
// data.
type DataMovementProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Data DataMovementProfileData `json:"data"`
}

// DataMovementProfileData says which profile is the default. The rest is for
// the rabbit: the command with variables in it, slots of each host in its MPI
// host file (0 for none), and every how many seconds it looks at the output (0
// for never). The API server fills in what is not given.
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
