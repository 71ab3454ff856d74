package nnf

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindDataMovementProfile is the kind in references to a profile.
const KindDataMovementProfile = "NnfDataMovementProfile"

// NamespaceProfiles is where administrators keep profiles. Pinned copies lie
// elsewhere and are not for data movements of computes (contract nnf-dm.md
// 4.2.5).
const NamespaceProfiles = "nnf-system"

// DataMovementProfile is an administrator's way of copying (contract nnf-dm.md
// 6). Content is under data.
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

// DataMovementProfileList is a list as the API server sends it.
type DataMovementProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataMovementProfile `json:"items"`
}
