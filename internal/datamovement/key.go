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

// SameRequest tells whether an existing movement is what want asks for: the
// key was repeated with the same request, not with another one.
func SameRequest(have, want *nnf.DataMovement) bool {
	return have.Labels[api.LabelRequestKey] != "" && have.Labels[api.LabelRequestKey] == want.Labels[api.LabelRequestKey] &&
		have.Labels[api.LabelOwnerUID] == want.Labels[api.LabelOwnerUID] &&
		have.Spec.UserID == want.Spec.UserID &&
		have.Spec.Source.Path == want.Spec.Source.Path && have.Spec.Destination.Path == want.Spec.Destination.Path
}

// IsKeyReused tells whether f is a KeyReused.
func IsKeyReused(f *Fault) bool {
	return f != nil && f.Field == fieldKey && f.Reason == ReasonInvalidField
}

// KeyReused is the error for a key that was used for another request.
func KeyReused(key string) *Fault {
	return refused(fieldKey, key, "it was used for another source or destination")
}
