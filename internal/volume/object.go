package volume

import (
	"path"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// maxMounts bounds the entries of one ClientMount.
const maxMounts = 1024

// CheckObject judges the object as a whole, before any profile is fetched: it
// is for this node, wants a state that exists, and its entries do not collide.
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
	first := map[string]int{}
	for i := range cm.Spec.Mounts {
		p := path.Clean(cm.Spec.Mounts[i].MountPath)
		if j, ok := first[p]; ok {
			return samePath(j, i, p)
		}
		first[p] = i
	}
	return nil
}

// CheckPlans refuses plans with the same path: variables may have made equal
// what looked different in CheckObject. Plans may be nil.
func CheckPlans(plans []*Plan) error {
	first := map[string]int{}
	for _, p := range plans {
		if p == nil {
			continue
		}
		if j, ok := first[p.Path]; ok {
			return samePath(j, p.Index, p.Path)
		}
		first[p.Path] = p.Index
	}
	return nil
}

func samePath(i, j int, p string) error {
	return fatal("%s and %s are the same path %s", entryField(i, "mountPath"), entryField(j, "mountPath"), quote(p))
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
