package datamovement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Mount has the parts of an entry of a ClientMount that copies need.
type Mount struct {
	Namespace, Name string // of the ClientMount; the namespace is the node
	Index           int    // of the entry
	Path            string // cleaned, with variables replaced; empty if it cannot be used
	Given           string // as in the ClientMount
	Type            string
	Reference       *dws.ReferenceDevice
	Ready           bool   // desired and mounted
	DirectiveIndex  string // labels of the ClientMount; empty if absent or invalid
	JobID           string
}

// Mounts returns the entries of a ClientMount, in order. An entry with an unusable
// path is returned without a path and matches nothing.
func Mounts(cm *dws.ClientMount) []Mount {
	out := make([]Mount, 0, len(cm.Spec.Mounts))
	for i := range cm.Spec.Mounts {
		m := &cm.Spec.Mounts[i]
		out = append(out, Mount{
			Namespace: cm.Namespace, Name: cm.Name, Index: i,
			Path: mountPath(cm, m), Given: m.MountPath, Type: m.Type, Reference: m.Device.DeviceReference,
			Ready:          ready(cm, i),
			DirectiveIndex: labelOf(cm, api.LabelDirectiveIndex),
			JobID:          labelOf(cm, api.LabelJobID),
		})
	}
	return out
}

// ready reports whether entry i is mounted, and neither its unmount nor the deletion
// of the ClientMount has been requested.
func ready(cm *dws.ClientMount, i int) bool {
	if cm.DeletionTimestamp != nil || cm.Spec.DesiredState != dws.Mounted || i >= len(cm.Status.Mounts) {
		return false
	}
	s := cm.Status.Mounts[i]
	return s.State == dws.Mounted && s.Ready
}

func labelOf(cm *dws.ClientMount, key string) string {
	if v := cm.Label(key); labelValue(v) {
		return v
	}
	return ""
}

// mountPath replaces the variables that every mount has and cleans the path. It
// does not support the variables of a storage profile: a path that contains one is
// not used. The result becomes part of the rabbit's command line, so the rules for
// the paths of callers apply.
func mountPath(cm *dws.ClientMount, m *dws.Mount) string {
	p := m.MountPath
	if strings.Contains(p, "$") {
		p = strings.NewReplacer(
			"$JOBID", labelOf(cm, api.LabelJobID),
			"$DIRECTIVE_INDEX", labelOf(cm, api.LabelTargetDirectiveIndex),
			"$WORKFLOW_UID", labelOf(cm, api.LabelWorkflowUID),
			"$USERID", strconv.FormatInt(m.UserID, 10),
			"$GROUPID", strconv.FormatInt(m.GroupID, 10),
		).Replace(p)
	}
	return parseRoot(p)
}

// FindMount returns the mount of this compute that contains the request's source:
// the one with the longest path, compared by components. It must be mounted. Its
// type is lustre or gfs2, because xfs and raw cannot be mounted a second time on the
// rabbit. computes are the entries of the workflow's ClientMounts in the node's
// namespace.
func FindMount(r *Request, computes []Mount, node string) (Mount, error) {
	if len(computes) == 0 {
		return Mount{}, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "no client mounts found for node '%s'", node)
	}
	var best *Mount
	for i := range computes {
		m := &computes[i]
		if m.Path == "" {
			continue
		}
		if _, ok := within(r.from.Path, m.Path); ok && (best == nil || better(m, best)) {
			best = m
		}
	}
	switch {
	case best == nil:
		return Mount{}, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "source path '%s' not found in list of client mounts", r.Source)
	case !best.Ready:
		return Mount{}, failed(v2.ErrorReason_MOUNT_NOT_READY, "ClientMount %s/%s: '%s' is not mounted, or is being unmounted", best.Namespace, best.Name, best.Path)
	case best.Type != dws.TypeLustre && best.Type != dws.TypeGFS2:
		f := Invalid(fieldSource, "filesystem not supported: '%s'", text.Unquoted(best.Type))
		f.Reason = v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED
		return Mount{}, f
	case best.Reference == nil:
		return Mount{}, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "ClientMount %s/%s: Source path '%s' does not have device reference", best.Namespace, best.Name, r.Source)
	}
	return *best, nil
}

// better reports whether a takes precedence over b: by a longer path, then by being
// ready, then by name, so that the choice does not depend on the order of a list.
func better(a, b *Mount) bool {
	if len(a.Path) != len(b.Path) {
		return len(a.Path) > len(b.Path)
	}
	if a.Ready != b.Ready {
		return a.Ready
	}
	return byName(a, b) < 0
}

func byName(a, b *Mount) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Index, b.Index))
}

// OnRabbit returns the path of the request's source on the rabbit, and the mount
// there: the one of the same storage as m, the compute's mount. servers are the
// entries of the workflow's ClientMounts in the namespace of rabbit. Lustre servers
// may be on other rabbits, so for Lustre they are those in the namespaces of all
// rabbits, and rabbit takes precedence. servers must not include entries of compute
// nodes, which have different paths.
func OnRabbit(r *Request, m Mount, servers []Mount, node, rabbit string) (string, Mount, error) {
	rest, ok := within(r.from.Path, m.Path)
	if m.Path == "" || !ok {
		return "", Mount{}, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "source path '%s' not found in list of client mounts", r.Source)
	}
	if len(servers) == 0 {
		return "", Mount{}, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "no client mounts found for node '%s'", rabbit)
	}
	var same []*Mount
	for i := range servers {
		if s := &servers[i]; s.Path != "" && s.Type == m.Type && sameDevice(s.Reference, m.Reference) {
			same = append(same, s)
		}
	}
	if len(same) == 0 {
		return "", Mount{}, failed(v2.ErrorReason_MOUNT_NOT_FOUND, "initiator '%s' not found in list of client mounts residing on '%s'", node, rabbit)
	}
	s := slices.MinFunc(same, func(a, b *Mount) int {
		return cmp.Or(first(a.Ready, b.Ready), first(a.Namespace == rabbit, b.Namespace == rabbit), byName(a, b))
	})
	if !s.Ready {
		return "", Mount{}, failed(v2.ErrorReason_MOUNT_NOT_READY, "ClientMount %s/%s: '%s' is not mounted on the rabbit, or is being unmounted", s.Namespace, s.Name, s.Path)
	}
	out := cleanPath{Path: s.Path + rest, Slash: r.from.Slash}.String()
	if len(out) > maxPath {
		return "", Mount{}, refused(fieldSource, r.Source, "it is longer than 4095 bytes on the rabbit")
	}
	return out, *s, nil
}

// sameDevice reports whether two entries mount the same storage of the rabbit.
func sameDevice(a, b *dws.ReferenceDevice) bool { return a != nil && b != nil && *a == *b }

// first sorts true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// MatchDestination returns the global file system that contains the request's
// destination: the one with the longest mountRoot, compared by components. The
// object of a gfs2 movement has no reference to a file system, but its destination
// must be in one as well.
func MatchDestination(r *Request, systems []lus.LustreFileSystem) (dws.ObjectReference, error) {
	if len(systems) == 0 {
		return dws.ObjectReference{}, failed(v2.ErrorReason_DESTINATION_NOT_FOUND, "no LustreFileSystem resources found")
	}
	var best *lus.LustreFileSystem
	var bestRoot string
	for i := range systems {
		s := &systems[i]
		root := parseRoot(s.Spec.MountRoot)
		if root == "" {
			continue
		}
		if _, ok := within(r.to.Path, root); !ok {
			continue
		}
		if best == nil || cmp.Or(len(bestRoot)-len(root), cmp.Compare(s.Namespace, best.Namespace), cmp.Compare(s.Name, best.Name)) < 0 {
			best, bestRoot = s, root
		}
	}
	if best == nil {
		return dws.ObjectReference{}, failed(v2.ErrorReason_DESTINATION_NOT_FOUND, "unable to find a LustreFileSystem resource matching %s", r.Destination)
	}
	return dws.ObjectReference{Kind: lus.KindLustreFileSystem, Name: best.Name, Namespace: best.Namespace}, nil
}
