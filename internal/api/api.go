// Package api defines names that the daemons share with the rest of Near-Node Flash:
// label keys, finalizers, API groups and the supported versions. The packages below
// it define the objects, with only the fields that the daemons use.
//
// It must not know how objects are transported, nor what is done with them.
package api

// Label keys. Other programs set these labels, and read those that nnf-dm sets on
// data movements.
const (
	LabelWorkflowName      = "dataworkflowservices.github.io/workflow.name"
	LabelWorkflowNamespace = "dataworkflowservices.github.io/workflow.namespace"
	LabelWorkflowUID       = "dataworkflowservices.github.io/workflow.uid"

	LabelOwnerKind      = "dataworkflowservices.github.io/owner.kind"
	LabelOwnerName      = "dataworkflowservices.github.io/owner.name"
	LabelOwnerNamespace = "dataworkflowservices.github.io/owner.namespace"
	LabelOwnerUID       = "dataworkflowservices.github.io/owner.uid"

	LabelDirectiveIndex         = "nnf.cray.hpe.com/directive_index"
	LabelJobID                  = "nnf.cray.hpe.com/job_id"
	LabelTargetDirectiveIndex   = "nnf.cray.hpe.com/target_directive_index"
	LabelTargetOwnerUID         = "nnf.cray.hpe.com/target_owner_uid"
	LabelPinnedProfileName      = "nnf.cray.hpe.com/pinned_storage_profile_name"
	LabelPinnedProfileNamespace = "nnf.cray.hpe.com/pinned_storage_profile_namespace"

	// LabelTeardownState is the workflow state that waits for a data movement and in
	// which it may be removed: PostRun for those created by compute nodes.
	LabelTeardownState = "nnf.cray.hpe.com/teardown_state"

	// LabelInitiator is the compute node that created a data movement, or copy_in or
	// copy_out for those of the workflow controller. Watches use it in their selector.
	LabelInitiator = "dm.cray.hpe.com/initiator"
)

// Labels that nnf-dm sets on data movements for itself. No other program reads them.
const (
	LabelBatch      = "compute-daemons.github.io/batch"       // the handle of the batch
	LabelRequestKey = "compute-daemons.github.io/request-key" // digest of the client's key, to recognise a repeated request
)

// FinalizerClientMount delays the deletion of a ClientMount until its node has
// unmounted. The rabbit's software removes exactly this name for offline nodes, so it
// must not change.
const FinalizerClientMount = "nnf.cray.hpe.com/nnf_clientmount"

// FinalizerDataMovement delays the deletion of a data movement until the rabbit has
// ended the copy. The rabbit sets and removes it.
const FinalizerDataMovement = "dm.cray.hpe.com"

// API groups.
const (
	GroupDWS = "dataworkflowservices.github.io"
	GroupNNF = "nnf.cray.hpe.com"
	GroupLUS = "lus.cray.hpe.com"
)

// The supported versions of each group, newest first. The fields that the daemons use
// are identical in all of them.
var (
	VersionsDWS = []string{"v1alpha7", "v1alpha6"}
	VersionsNNF = []string{"v1alpha11", "v1alpha10"}
	VersionsLUS = []string{"v1beta1", "v1alpha1"}
)
