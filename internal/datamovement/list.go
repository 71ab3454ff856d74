package datamovement

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// Selector returns the labels that the movements of a workflow carry, with the
// node's when only its own are wanted (contract nnf-dm.md 4.7, "Do better" 25).
func Selector(w WorkflowRef, node string) map[string]string {
	out := map[string]string{api.LabelOwnerKind: dws.KindWorkflow, api.LabelOwnerName: w.Name, api.LabelOwnerNamespace: w.Namespace}
	if node != "" {
		out[api.LabelInitiator] = node
	}
	return out
}

// List returns the names of the movements that the caller may see: oldest
// first, those of one second by name.
func List(a Access, asked WorkflowRef, movements []*nnf.DataMovement) []string {
	var seen []*nnf.DataMovement
	for _, dm := range movements {
		if a.Listed(dm, asked).Allowed() {
			seen = append(seen, dm)
		}
	}
	slices.SortFunc(seen, func(a, b *nnf.DataMovement) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	names := make([]string, 0, len(seen))
	for _, dm := range seen {
		names = append(names, dm.Name)
	}
	return slices.Compact(names)
}

// Describe names a movement for a record, with the ids that matter.
func Describe(dm *nnf.DataMovement) string {
	return dm.Namespace + "/" + dm.Name + " of user " + strconv.FormatInt(dm.Spec.UserID, 10)
}
