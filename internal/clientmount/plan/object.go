package plan

import (
	"fmt"
	"path"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// maxMounts bounds the entries of one ClientMount.
const maxMounts = 1024

// CheckObject judges the object as a whole, before any profile is fetched: it
// is for this node, wants a state that exists, and its paths do not collide.
// The error is a Fatal *dws.ResourceError.
func CheckObject(cm *dws.ClientMount, node string) error {
	if cm.Spec.Node != node {
		return fatal("the ClientMount is for node %s, this is %s", quote(cm.Spec.Node), quote(node))
	}
	if s := cm.Spec.DesiredState; s != dws.Mounted && s != dws.Unmounted {
		return fatal("invalid desired state %s", shorten(string(s)))
	}
	switch n := len(cm.Spec.Mounts); {
	case n == 0:
		return fatal("spec.mounts is empty")
	case n > maxMounts:
		return fatal("spec.mounts has %d entries, at most %d are allowed", n, maxMounts)
	}
	// Variables are not expanded yet. Expansion keeps a path below the one that
	// it starts with, whatever the values are.
	places := make([]place, len(cm.Spec.Mounts))
	for i := range places {
		places[i] = place{index: i, path: path.Clean(cm.Spec.Mounts[i].MountPath)}
	}
	return checkPlaces(places)
}

// CheckPlans refuses plans whose paths collide: variables may have made equal
// what looked different in CheckObject, and only the plan knows which target is a
// file. Plans may be nil. The error is a Fatal *dws.ResourceError.
func CheckPlans(plans []*Plan) error {
	places := make([]place, 0, len(plans))
	for _, p := range plans {
		if p != nil {
			places = append(places, place{index: p.Index, path: p.Path, file: p.Target == TargetFile})
		}
	}
	return checkPlaces(places)
}

// place is where one entry of an object is mounted.
type place struct {
	index int    // in spec.mounts, which are mounted in this order
	path  string // clean
	file  bool   // the mount target is a file
}

// checkPlaces refuses two entries with the same path, an inner path that comes
// before its outer path, whose mount would hide it, and a path below a file.
func checkPlaces(places []place) error {
	// In this order a path follows the ones that it lies below at once.
	slices.SortFunc(places, func(a, b place) int {
		if c := comparePaths(a.path, b.path); c != 0 {
			return c
		}
		return a.index - b.index
	})
	var outer []place // each one below the one before
	for _, p := range places {
		for len(outer) > 0 && outer[len(outer)-1].path != p.path && !safepath.Below(p.path, outer[len(outer)-1].path) {
			outer = outer[:len(outer)-1]
		}
		if len(outer) > 0 {
			o := outer[len(outer)-1]
			inner := fmt.Sprintf("%s %s is below %s %s", entryField(p.index, "mountPath"), quote(p.path), entryField(o.index, "mountPath"), quote(o.path))
			switch {
			case o.path == p.path:
				return fatal("%s and %s are the same path %s", entryField(o.index, "mountPath"), entryField(p.index, "mountPath"), quote(p.path))
			case o.file:
				return fatal("%s, whose mount target is a file; a file cannot hold a directory: use another path", inner)
			case o.index > p.index:
				return fatal("%s, which is mounted later and would hide it: list the outer path first", inner)
			}
		}
		outer = append(outer, p)
	}
	return nil
}

// comparePaths orders paths name by name: "/a", "/a/b", "/a-b".
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

// ProfileRef returns the namespace and name of the pinned profile from the
// object's labels (contract clientmountd.md 2.2). The error is Fatal.
func ProfileRef(cm *dws.ClientMount) (namespace, name string, err error) {
	if len(cm.Labels) == 0 {
		return "", "", fatal("unable to find labels")
	}
	for _, key := range []string{api.LabelPinnedProfileName, api.LabelPinnedProfileNamespace} {
		switch value := cm.Label(key); {
		case value == "":
			return "", "", fatal("unable to find %s label", key)
		case !objectName(value):
			// It becomes a piece of a request path.
			return "", "", refused("label "+key, value, objectNameRule)
		}
	}
	return cm.Label(api.LabelPinnedProfileNamespace), cm.Label(api.LabelPinnedProfileName), nil
}

// CheckProfile refuses a profile that is not pinned: it could change under a
// running job. The error is Fatal.
func CheckProfile(p *nnf.StorageProfile) error {
	if !p.Data.Pinned {
		return fatal("Expected pinned NnfStorageProfile, but it was not pinned: %s", shorten(p.Name))
	}
	return nil
}
