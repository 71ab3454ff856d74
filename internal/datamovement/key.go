package datamovement

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// keyDigest is the same for a repeated request: of the same user, node,
// workflow and key. It becomes part of the object's name, so that the API
// server itself refuses the second one, whatever came between ("Do better" 31).
// A name with another user's key cannot be had by choosing a key.
func keyDigest(p *Parts) string {
	return digest("key", p.Node, string(p.Workflow.UID), fmt.Sprint(p.Identity.UID), p.Request.Key)
}

// BatchHandle returns the handle of a batch. unique is random, or the caller's
// own key, with which a repeated request gets the same handle.
func BatchHandle(node string, workflowUID string, uid uint32, unique string) string {
	return "batch-" + digest("batch", node, workflowUID, fmt.Sprint(uid), unique)
}

// BatchKey returns the key of one pair of a batch that has a key itself; empty
// when it has none.
func BatchKey(key string, index int) string {
	if key == "" {
		return ""
	}
	return digest("pair", key, fmt.Sprint(index))
}

// IsBatch tells whether what a request calls a uid is the handle of a batch.
func IsBatch(uid string) bool { return CheckHandle(uid) == nil }

// CheckHandle refuses what BatchHandle cannot have returned. It goes into a
// label selector.
func CheckHandle(handle string) error {
	rest, ok := strings.CutPrefix(handle, "batch-")
	if _, err := hex.DecodeString(rest); !ok || err != nil || len(rest) != 2*digestBytes {
		return refused(fieldUID, handle, "CreateBatch returns it")
	}
	return nil
}

const digestBytes = 10

// digest keeps the parts apart by their lengths.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:digestBytes])
}

// Differs returns the field of the request in which an existing movement is not
// what want asks for; empty when the key was repeated with the same request.
func Differs(have, want *nnf.DataMovement) string {
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

func sameSlots(a, b *int32) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// KeyReused is the error for a key that belongs to the movement of a request
// that differs in field.
func KeyReused(have *nnf.DataMovement, field string) *Fault {
	return invalid(fieldKey, "request_key is refused: data movement %s has it, which differs in %s: use another key", quote(have.Name), field)
}

// KeySpent returns the error for a key whose movement is the one that is asked
// for, but has not succeeded and never will; nil for any other movement. Without
// it a client that repeats its request would get the uid of the failure for ever.
// A second attempt is not made in silence: the first one may have copied a part,
// and its failure fails the workflow until it is deleted.
func KeySpent(have *nnf.DataMovement) *Fault {
	what := ""
	switch {
	case Completed(have) && have.Status.Status == nnf.MovementSuccess:
		return nil
	case Completed(have):
		what = "has ended as " + quote(have.Status.Status)
	case have.Spec.Cancel:
		what = "is being cancelled"
	default:
		return nil
	}
	return invalid(fieldKey, "request_key is refused: its data movement %s %s: delete that one to copy again with this key, or use another key", quote(have.Name), what)
}
