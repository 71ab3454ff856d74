package datamovement

import (
	"cmp"
	"slices"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

const (
	// maxDescribed is the maximum number of mounts, and of destinations, in a description.
	maxDescribed = 64
	// maxDescribedText limits each text of a description, in bytes.
	maxDescribedText = 1024
)

// ProblemV2 returns an error as a part of a response of version 2, nil for nil.
func ProblemV2(err error) *v2.Problem {
	f := Explain(err)
	if f == nil {
		return nil
	}
	return &v2.Problem{Reason: f.Reason, Message: text.Clip(f.Error(), maxDescribedText), Metadata: f.Metadata()}
}

// DescribedMounts returns the mounts of a compute that a description includes: of several
// with the same path the one that FindMount uses, sorted by path. omitted is how many more
// there are.
func DescribedMounts(computes []Mount) (list []Mount, omitted int) {
	at := make(map[string]int)
	for i := range computes {
		m := computes[i]
		if k, ok := at[m.Path]; ok && m.Path != "" {
			if better(&m, &list[k]) {
				list[k] = m
			}
			continue
		}
		at[m.Path] = len(list)
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Mount) int {
		return cmp.Or(cmp.Compare(cmp.Or(a.Path, a.Given), cmp.Or(b.Path, b.Given)), byName(&a, &b))
	})
	n := min(len(list), maxDescribed)
	return list[:n], len(list) - n
}

// RequestFrom returns a checked request to copy all of a mount to an unspecified
// destination.
func RequestFrom(w WorkflowRef, m Mount, o *Options) (*Request, error) {
	if m.Path == "" {
		return nil, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "ClientMount %s/%s: the path %s cannot be the source of a copy", m.Namespace, m.Name, text.Quote(m.Given))
	}
	r := &Request{Workflow: w, Source: m.Path, Destination: "/destination", Slots: -1, MaxSlots: -1}
	return r, r.Check(o)
}

// StorageV2 describes a mount of a compute. err is the reason why nothing can be copied from
// it, or nil.
func StorageV2(m Mount, err error) *v2.Storage {
	return &v2.Storage{
		Path: text.Clip(cmp.Or(m.Path, m.Given), maxDescribedText), Type: text.Clip(m.Type, maxDescribedText),
		Ready: m.Ready, Error: ProblemV2(err),
	}
}

// DestinationsV2 describes the global file systems that MatchDestination accepts. omitted is
// how many more there are.
func DestinationsV2(systems []lus.LustreFileSystem) (list []*v2.Destination, omitted int) {
	var roots []string
	for i := range systems {
		if root := parseRoot(systems[i].Spec.MountRoot); root != "" {
			roots = append(roots, root)
		}
	}
	slices.Sort(roots)
	roots = slices.Compact(roots)
	n := min(len(roots), maxDescribed)
	for _, root := range roots[:n] {
		list = append(list, &v2.Destination{Path: text.Clip(root, maxDescribedText)})
	}
	return list, len(roots) - n
}
