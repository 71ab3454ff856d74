package datamovement

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Parts are the inputs of a movement. A separate function checks each of them.
type Parts struct {
	Request     Request
	Node        string // this compute
	Rabbit      string // its rabbit; required for gfs2 only
	Workflow    *dws.Workflow
	Identity    Identity                 // from Policy.CreateFor
	Mount       Mount                    // from FindMount
	Source      string                   // from OnRabbit
	Destination dws.ObjectReference      // from MatchDestination
	Profile     *nnf.DataMovementProfile // from ChooseProfile
}

// Check returns an error for a mount for which no movement can be created. It does
// not need the profile, so that the daemon does not look up the profile of a request
// that fails anyway.
func (p *Parts) Check() error {
	switch {
	case p.Workflow == nil || p.Mount.Reference == nil:
		return NewFault(ErrUnavailable, v2.ErrorReason_INTERNAL, "the data for the request is incomplete")
	case p.Mount.Type != dws.TypeLustre && p.Mount.Type != dws.TypeGFS2:
		return NewFault(ErrInvalid, v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, "filesystem not supported: '%s'", text.Unquoted(p.Mount.Type))
	// Teardown of the directive waits for its movements; a movement that it cannot
	// find would outlive the storage.
	case p.Mount.Type == dws.TypeLustre && p.Mount.DirectiveIndex == "":
		return failed(v2.ErrorReason_MOUNT_NOT_FOUND, "unable to find directive index label on compute ClientMount, %s/%s", p.Mount.Namespace, p.Mount.Name)
	case p.Mount.Type == dws.TypeGFS2 && p.Rabbit == "":
		return NewFault(ErrUnavailable, v2.ErrorReason_UNAVAILABLE, "the rabbit of this node is not known yet: try again")
	}
	return nil
}

// Object returns the NnfDataMovement for the rabbit, without the apiVersion, which
// depends on the API server. Movements of both file systems have the labels of the
// directive and the job, so that Teardown of the directive finds them.
func Object(p *Parts) (*nnf.DataMovement, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if p.Profile == nil {
		return nil, NewFault(ErrUnavailable, v2.ErrorReason_INTERNAL, "the data for the request is incomplete")
	}
	dm := &nnf.DataMovement{
		TypeMeta: metav1.TypeMeta{Kind: nnf.KindDataMovement},
		Spec: nnf.DataMovementSpec{
			Source:      nnf.DataMovementEnd{Path: p.Source, StorageReference: p.Mount.Reference.ObjectReference},
			Destination: nnf.DataMovementEnd{Path: p.Request.Destination}, // checked, and as the caller wrote it
			UserID:      int64(p.Identity.UID), GroupID: int64(p.Identity.GID),
			ProfileReference: dws.ObjectReference{Kind: nnf.KindDataMovementProfile, Name: p.Profile.Name, Namespace: nnf.NamespaceProfiles},
			UserConfig: nnf.DataMovementConfig{
				Dryrun:        p.Request.Dryrun,
				MPIRunOptions: p.Request.MPIRunOptions, DCPOptions: p.Request.DCPOptions,
				LogStdout: p.Request.LogStdout, StoreStdout: p.Request.StoreStdout,
				Slots: slots(p.Request.Slots), MaxSlots: slots(p.Request.MaxSlots),
			},
		},
	}
	prefix := nnf.PrefixMovement
	if p.Mount.Type == dws.TypeGFS2 {
		prefix, dm.Namespace = nnf.PrefixNodeMovement, p.Rabbit
	} else {
		dm.Namespace = nnf.NamespaceDataMovement
		dm.Spec.Destination.StorageReference = p.Destination
	}
	dm.GenerateName = prefix
	dm.Labels = labels(p)
	if p.Request.Key != "" {
		dm.GenerateName, dm.Name = "", prefix+dm.Labels[api.LabelRequestKey]
	}
	if err := checkCommand(p.Profile.Data.Command, dm); err != nil {
		return nil, err
	}
	return dm, nil
}

// slots returns the value for the object: nil if the profile determines it.
func slots(n int32) *int32 {
	if n < 0 {
		return nil
	}
	return &n
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
	optional := map[string]string{
		api.LabelDirectiveIndex: p.Mount.DirectiveIndex, api.LabelJobID: p.Mount.JobID, api.LabelBatch: p.Request.Batch, api.LabelRequestKey: keyDigest(p),
	}
	for key, value := range optional {
		if value != "" {
			out[key] = value
		}
	}
	return out
}

// teardownState is the workflow state in which the movement may be removed.
const teardownState = dws.StatePostRun

// sizeOfNames is the size of the names, labels and times of a movement, in bytes.
const sizeOfNames = 1 << 10

// Size returns the approximate size of a movement in bytes, in a list of the API
// server and in the memory of a process that follows it.
func Size(dm *nnf.DataMovement) int64 {
	n := sizeOfNames + len(dm.Spec.Source.Path) + len(dm.Spec.Destination.Path) +
		len(dm.Spec.UserConfig.DCPOptions) + len(dm.Spec.UserConfig.MPIRunOptions) + len(dm.Status.Message)
	if c := dm.Status.CommandStatus; c != nil {
		n += len(c.Command) + len(c.LastMessage)
	}
	return int64(n)
}

// Describe returns the namespace, name and user of a movement, for log records.
func Describe(dm *nnf.DataMovement) string {
	return dm.Namespace + "/" + dm.Name + " of user " + strconv.FormatInt(dm.Spec.UserID, 10)
}

// Namespace returns the namespace of the movement with that uid: that of the
// rabbit, or the one that all rabbits share.
func Namespace(uid, rabbit string) string {
	if strings.HasPrefix(uid, nnf.PrefixNodeMovement) {
		return rabbit
	}
	return nnf.NamespaceDataMovement
}

// ChooseProfile returns the profile with that name, or the default profile for an
// empty name. There must be exactly one default.
func ChooseProfile(profiles []nnf.DataMovementProfile, name string) (*nnf.DataMovementProfile, error) {
	var found []*nnf.DataMovementProfile
	for i := range profiles {
		p := &profiles[i]
		if name != "" && p.Name == name {
			return p, nil
		}
		if p.Data.Default {
			found = append(found, p)
		}
	}
	switch {
	case name != "":
		return nil, failed(v2.ErrorReason_PROFILE_NOT_FOUND, "unable to retrieve NnfDataMovementProfile: %s", text.Unquoted(name))
	case len(found) == 0:
		return nil, failed(v2.ErrorReason_PROFILE_NOT_FOUND, "unable to find a default NnfDataMovementProfile to use")
	case len(found) == 1:
		return found[0], nil
	}
	names := make([]string, 0, len(found))
	for _, p := range found {
		names = append(names, text.Unquoted(p.Name))
	}
	slices.Sort(names)
	return nil, failed(v2.ErrorReason_PROFILE_NOT_FOUND, "more than one default NnfDataMovementProfile found; unable to pick one: [%s]", strings.Join(names, " "))
}

// checkCommand refuses options that the rabbit would insert at a wrong place of the
// profile's command. The rabbit inserts the options after the first occurrence of
// the letters dcp or mpirun, even inside a word. In a profile without that program,
// this could be inside a path.
func checkCommand(command string, dm *nnf.DataMovement) error {
	c := &dm.Spec.UserConfig
	for _, t := range []struct{ name, field, options string }{
		{dcpTool.name, fieldDCPOptions, c.DCPOptions}, {mpirunTool.name, fieldMPIRunOptions, c.MPIRunOptions},
	} {
		if strings.TrimSpace(t.options) == "" {
			continue
		}
		i := strings.Index(command, t.name)
		if i < 0 || !wordAt(command, i, len(t.name)) {
			return refused(t.field, t.options, "the profile's command does not run "+t.name)
		}
		before := command[:i]
		for _, v := range []struct{ name, value string }{{"$SRC", dm.Spec.Source.Path}, {"$DEST", dm.Spec.Destination.Path}} {
			if strings.Contains(before, v.name) && strings.Contains(v.value, t.name) {
				return refused(t.field, t.options, "the profile's command names the path "+text.Quote(v.value)+", which contains "+t.name+", before it runs "+t.name)
			}
		}
	}
	return nil
}

// wordAt reports whether s[i:i+n] is the name of a program: a word, or the last
// component of a path.
func wordAt(s string, i, n int) bool {
	start := i == 0 || strings.IndexByte(" \t\n/;&|(", s[i-1]) >= 0
	end := i+n == len(s) || strings.IndexByte(" \t\n", s[i+n]) >= 0
	return start && end
}

// keyDigest returns the same digest for repeated requests, which have the same user,
// node, workflow and key. It becomes part of the object's name, so that the API
// server itself refuses a second object, even if the daemon was restarted in
// between. No key of one user leads to the name of another user's object. The
// digest of a request without a key is empty.
func keyDigest(p *Parts) string {
	if p.Request.Key == "" {
		return ""
	}
	return digest("key", p.Node, string(p.Workflow.UID), fmt.Sprint(p.Identity.UID), p.Request.Key)
}

// BatchPrefix is the prefix of every handle of a batch.
const BatchPrefix = "batch-"

// BatchHandle returns the handle of a batch. unique is random, or the caller's
// key, so that a repeated request gets the same handle.
func BatchHandle(node string, workflowUID string, uid uint32, unique string) string {
	return BatchPrefix + digest("batch", node, workflowUID, fmt.Sprint(uid), unique)
}

// BatchKey returns the key of one pair of a batch with a key; empty for a batch
// without a key.
func BatchKey(key string, index int) string {
	if key == "" {
		return ""
	}
	return digest("pair", key, fmt.Sprint(index))
}

// CheckHandle returns an error for a string that BatchHandle cannot have returned.
// The handle becomes part of a label selector.
func CheckHandle(handle string) error {
	rest, ok := strings.CutPrefix(handle, BatchPrefix)
	if _, err := hex.DecodeString(rest); !ok || err != nil || len(rest) != 2*digestBytes {
		return refused(fieldUID, handle, "it is not a handle that CreateBatch returns")
	}
	return nil
}

const digestBytes = 10

// digest includes the length of each part, so that different parts have different
// digests.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:digestBytes])
}

// differs returns the first field of the request in which an existing movement
// differs from want; empty if the key was repeated with the same request.
func differs(have, want *nnf.DataMovement) string {
	h, w := &have.Spec, &want.Spec
	a, b := &h.UserConfig, &w.UserConfig
	for _, f := range []struct {
		field string
		same  bool
	}{
		{fieldKey, have.Labels[api.LabelRequestKey] != "" && have.Labels[api.LabelRequestKey] == want.Labels[api.LabelRequestKey]},
		{fieldWorkflow, have.Labels[api.LabelOwnerUID] == want.Labels[api.LabelOwnerUID]},
		{"user", h.UserID == w.UserID && h.GroupID == w.GroupID},
		{fieldSource, h.Source.Path == w.Source.Path},
		{fieldDestination, h.Destination.Path == w.Destination.Path},
		{fieldProfile, h.ProfileReference.Name == w.ProfileReference.Name},
		{"dryrun", a.Dryrun == b.Dryrun},
		{fieldDCPOptions, a.DCPOptions == b.DCPOptions},
		{fieldMPIRunOptions, a.MPIRunOptions == b.MPIRunOptions},
		{"logStdout", a.LogStdout == b.LogStdout},
		{"storeStdout", a.StoreStdout == b.StoreStdout},
		{fieldSlots, sameSlots(a.Slots, b.Slots)},
		{fieldMaxSlots, sameSlots(a.MaxSlots, b.MaxSlots)},
	} {
		if !f.same {
			return f.field
		}
	}
	return ""
}

func sameSlots(a, b *int32) bool { return a == b || a != nil && b != nil && *a == *b }

// CheckRepeated checks a request with the key of an existing movement. It returns
// nil if that movement is the result of the request.
//
// It also refuses the key if the movement matches the request, but has ended without
// success or is being cancelled: otherwise a client that repeats its request would
// always get the uid of the failed movement. The daemon does not start a second
// attempt silently, because the first one may have copied some of the data, and its
// failure fails the workflow until it is deleted.
func CheckRepeated(have, want *nnf.DataMovement) error {
	if field := differs(have, want); field != "" {
		return Invalid(fieldKey, "request_key is refused: data movement %s has this key and a different %s: use another key", text.Quote(have.Name), field)
	}
	what := ""
	switch {
	case Completed(have) && have.Status.Status == nnf.MovementSuccess:
		return nil
	case Completed(have):
		what = "has ended with status " + text.Quote(have.Status.Status)
	case have.Spec.Cancel:
		what = "is being cancelled"
	default:
		return nil
	}
	return Invalid(fieldKey, "request_key is refused: its data movement %s %s: delete it to copy again with this key, or use another key", text.Quote(have.Name), what)
}
