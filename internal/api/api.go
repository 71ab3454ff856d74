// Package api names what the daemons share with the rest of Near-Node Flash:
// label keys, finalizers, API groups and the versions that we know. The
// objects themselves live in the packages below it, with just the fields that
// we touch.
//
// It must not know how objects are transported, nor what is done with them.
package api

// Label keys. Other programs set them, and read those that nnf-dm puts on data
// movements.
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

	// LabelTeardownState is the workflow state that waits for a data movement,
	// and in which it may go: PostRun for those that computes make.
	LabelTeardownState = "nnf.cray.hpe.com/teardown_state"

	// LabelInitiator is the compute node that made a data movement, or copy_in
	// or copy_out for those of the workflow controller. Watches select by it.
	LabelInitiator = "dm.cray.hpe.com/initiator"
)

// Labels of our own on data movements. No other program reads them.
const (
	LabelBatch      = "compute-daemons.github.io/batch"       // the handle of the batch
	LabelRequestKey = "compute-daemons.github.io/request-key" // chosen by the client, to recognise a repeated request
)

// FinalizerClientMount keeps a ClientMount until its node has unmounted. The
// rabbit removes exactly this name for nodes that are offline, so it must not
// change.
const FinalizerClientMount = "nnf.cray.hpe.com/nnf_clientmount"

// FinalizerDataMovement keeps a data movement until the rabbit has ended the
// copy. The rabbit sets and removes it.
const FinalizerDataMovement = "dm.cray.hpe.com"

// API groups.
const (
	GroupDWS = "dataworkflowservices.github.io"
	GroupNNF = "nnf.cray.hpe.com"
	GroupLUS = "lus.cray.hpe.com"
)

// The known versions of each group, newest first. The fields that the daemons
// touch are identical in all of them.
var (
	VersionsDWS = []string{"v1alpha7", "v1alpha6"}
	VersionsNNF = []string{"v1alpha11", "v1alpha10"}
	VersionsLUS = []string{"v1beta1", "v1alpha1"}
)
