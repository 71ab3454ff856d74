package datamovement

import (
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Mount is one entry of a ClientMount as far as copies need it.
type Mount struct {
	Namespace, Name string // of the ClientMount; the namespace is the node
	Index           int    // of the entry
	Path            string // with variables replaced, clean; empty when it cannot be used
	Type            string
	Lustre          bool // device.type is lustre
	Reference       *dws.ReferenceDevice
	Ready           bool   // mounted is wanted, and reached
	DirectiveIndex  string // labels of the ClientMount; empty when absent or no label's value
	JobID           string
}

// Mounts returns the entries of a ClientMount in their order. An entry whose
// path cannot be used stays, without a path: it matches nothing.
func Mounts(cm *dws.ClientMount) []Mount {
	out := make([]Mount, 0, len(cm.Spec.Mounts))
	for i := range cm.Spec.Mounts {
		m := &cm.Spec.Mounts[i]
		out = append(out, Mount{
			Namespace: cm.Namespace, Name: cm.Name, Index: i,
			Path: mountPath(cm, m), Type: m.Type,
			Lustre: m.Device.Type == dws.DeviceLustre, Reference: m.Device.DeviceReference,
			Ready:          ready(cm, i),
			DirectiveIndex: labelOf(cm, api.LabelDirectiveIndex),
			JobID:          labelOf(cm, api.LabelJobID),
		})
	}
	return out
}

// ready tells that entry i is mounted and is to stay so ("Do better" 19).
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

// mountPath replaces the variables that every mount has (contract
// clientmountd.md 6.2) and cleans the path. Variables of a storage profile are
// not known here; a path with one is not used. What the path becomes ends up in
// the rabbit's command line, so it is held to the rules of a caller's path.
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

// sameDevice tells whether two entries mount the same storage of the rabbit.
func sameDevice(a, b *dws.ReferenceDevice) bool { return a != nil && b != nil && *a == *b }
