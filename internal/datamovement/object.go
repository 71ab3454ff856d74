package datamovement

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// Parts are what a movement is made of, each checked by its own function.
type Parts struct {
	Request     Request
	Node        string // this compute
	Rabbit      string // its rabbit, needed for gfs2 only
	Workflow    *dws.Workflow
	Identity    Identity            // from Policy.CreateFor
	Mount       Mount               // from FindMount
	Source      string              // from OnRabbit
	Destination dws.ObjectReference // from MatchDestination
	Profile     string              // the name, chosen or default
	APIVersion  string              // "nnf.cray.hpe.com/v1alpha11", as served
}

// Object returns the NnfDataMovement that the rabbit understands (contract
// nnf-dm.md 4.2.6). Both types carry the labels of the directive and the job,
// so that Teardown of the directive finds them ("Do better" 15).
func Object(p *Parts) (*nnf.DataMovement, error) {
	if p.Workflow == nil || p.Mount.Reference == nil {
		return nil, NewFault(ErrUnavailable, ReasonInternal, "the request was not looked up completely")
	}
	dm := &nnf.DataMovement{
		TypeMeta: metav1.TypeMeta{APIVersion: p.APIVersion, Kind: nnf.KindDataMovement},
		Spec: nnf.DataMovementSpec{
			Source:      nnf.DataMovementEnd{Path: p.Source, StorageReference: p.Mount.Reference.ObjectReference},
			Destination: nnf.DataMovementEnd{Path: p.Request.Destination}, // checked, and as the caller wrote it
			UserID:      int64(p.Identity.UID), GroupID: int64(p.Identity.GID),
			ProfileReference: dws.ObjectReference{Kind: nnf.KindDataMovementProfile, Name: p.Profile, Namespace: nnf.NamespaceProfiles},
			UserConfig: nnf.DataMovementConfig{
				Dryrun:        p.Request.Dryrun,
				MPIRunOptions: p.Request.MPIRunOptions, DCPOptions: p.Request.DCPOptions,
				LogStdout: p.Request.LogStdout, StoreStdout: p.Request.StoreStdout,
				Slots: slots(p.Request.Slots), MaxSlots: slots(p.Request.MaxSlots),
			},
		},
	}
	prefix := nnf.PrefixMovement
	switch p.Mount.Type {
	case dws.TypeLustre:
		// Teardown of the directive waits for its movements; one that it cannot
		// find would outlive the storage.
		if p.Mount.DirectiveIndex == "" {
			return nil, failed(ReasonMountNotFound, "unable to find directive index label on compute ClientMount, %s/%s", p.Mount.Namespace, p.Mount.Name)
		}
		dm.Namespace = nnf.NamespaceDataMovement
		dm.Spec.Destination.StorageReference = p.Destination
	case dws.TypeGFS2:
		if p.Rabbit == "" {
			return nil, NewFault(ErrUnavailable, ReasonUnavailable, "the rabbit of this node is not known yet: try again")
		}
		prefix, dm.Namespace = nnf.PrefixNodeMovement, p.Rabbit
	default:
		return nil, NewFault(ErrInvalid, ReasonFileSystem, "filesystem not supported: '%s'", trimmed(p.Mount.Type))
	}
	dm.GenerateName = prefix
	dm.Labels = labels(p)
	if p.Request.Key != "" {
		dm.GenerateName, dm.Name = "", prefix+keyDigest(p)
		dm.Labels[api.LabelRequestKey] = keyDigest(p)
	}
	if p.Request.Batch != "" {
		dm.Labels[api.LabelBatch] = p.Request.Batch
	}
	return dm, nil
}

func labels(p *Parts) map[string]string {
	wf := p.Workflow
	out := map[string]string{
		api.LabelInitiator:         p.Node,
		api.LabelTeardownState:     teardownState,
		api.LabelWorkflowName:      wf.Name,
		api.LabelWorkflowNamespace: wf.Namespace,
		api.LabelWorkflowUID:       string(wf.UID),
		api.LabelOwnerKind:         dws.KindWorkflow,
		api.LabelOwnerName:         wf.Name,
		api.LabelOwnerNamespace:    wf.Namespace,
		api.LabelOwnerUID:          string(wf.UID),
	}
	for key, value := range map[string]string{api.LabelDirectiveIndex: p.Mount.DirectiveIndex, api.LabelJobID: p.Mount.JobID} {
		if value != "" {
			out[key] = value
		}
	}
	return out
}

// teardownState is the workflow state in which the movement may go.
const teardownState = dws.StatePostRun

// sizeOfNames is what a movement takes without its texts: names, labels, times.
const sizeOfNames = 1 << 10

// Size is about how many bytes a movement takes: in a list of the API server and
// in the memory of a process that follows it.
func Size(dm *nnf.DataMovement) int64 {
	n := sizeOfNames + len(dm.Spec.Source.Path) + len(dm.Spec.Destination.Path) +
		len(dm.Spec.UserConfig.DCPOptions) + len(dm.Spec.UserConfig.MPIRunOptions) + len(dm.Status.Message)
	if c := dm.Status.CommandStatus; c != nil {
		n += len(c.Command) + len(c.LastMessage)
	}
	return int64(n)
}
