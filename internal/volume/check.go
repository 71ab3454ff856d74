package volume

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

const (
	maxMounts     = 1024 // entries of one ClientMount
	maxNamespaces = 1024 // NVMe namespaces of one entry
	maxNQN        = 223  // NVMe base specification, 4.5

	objectNameRule = "a name of a Kubernetes object has 1 to 253 of a-z A-Z 0-9 . - and starts with a letter or digit"
	lustreNameRule = "a Lustre file system's name has 1 to 8 of A-Z a-z 0-9 _ - and does not start with -"
	nidRule        = "NIDs are made of A-Z a-z 0-9 . : @ , _ - and do not start with -"
)

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

// checkEntry refuses an entry with missing blocks or with values that could
// mean something to a command, a path or a shell.
func checkEntry(cm *dws.ClientMount, m *dws.Mount, index int) error {
	for _, key := range []string{api.LabelJobID, api.LabelTargetDirectiveIndex, api.LabelTargetOwnerUID, api.LabelWorkflowUID} {
		if v := cm.Label(key); v != "" && !labelValue(v) {
			return refused("label "+key, v, "a label has at most 63 of A-Z a-z 0-9 . _ - and starts with a letter or digit")
		}
	}
	field := func(name string) string { return entryField(index, name) }
	switch m.Type {
	case dws.TypeLustre, dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw:
	default:
		return fatal("%s: unsupported file system type %s: it is lustre, xfs, gfs2 or none", field("type"), quote(m.Type))
	}
	switch m.Device.Type {
	case dws.DeviceLustre, dws.DeviceLVM, dws.DeviceReference:
	default:
		return refused(field("device.type"), m.Device.Type, "it is lustre, lvm or reference")
	}
	// chown(2) takes the largest number for "leave as it is".
	if none := ^uint32(0); m.SetPermissions && (m.UserID == none || m.GroupID == none) {
		return fatal("%s and %s: %d is nobody's number", field("userID"), field("groupID"), none)
	}

	ref := m.Device.DeviceReference
	switch {
	case ref == nil:
		return fatal("%s is missing", field("device.deviceReference"))
	case ref.Data < 0:
		return refused(field("device.deviceReference.data"), strconv.Itoa(ref.Data), "an index is not negative")
	}
	for _, f := range []struct{ name, value string }{
		{"name", ref.ObjectReference.Name}, {"namespace", ref.ObjectReference.Namespace},
	} {
		if f.value != "" && !objectName(f.value) {
			return refused(field("device.deviceReference.objectReference."+f.name), f.value, objectNameRule)
		}
	}
	if m.Type == dws.TypeLustre {
		return checkLustre(m, field)
	}
	return checkLVM(m, field)
}

func checkLustre(m *dws.Mount, field func(string) string) error {
	l := m.Device.Lustre
	switch {
	case l == nil:
		return fatal("%s is missing", field("device.lustre"))
	case !lustreName(l.FileSystemName):
		return refused(field("device.lustre.fileSystemName"), l.FileSystemName, lustreNameRule)
	case !nidList(l.MGSAddresses):
		return refused(field("device.lustre.mgsAddresses"), l.MGSAddresses, nidRule)
	}
	return nil
}

func checkLVM(m *dws.Mount, field func(string) string) error {
	if m.Device.Type != dws.DeviceLVM {
		return nil
	}
	if m.Device.LVM == nil {
		return fatal("%s is missing", field("device.lvm"))
	}
	list := m.Device.LVM.NVMeInfo
	if len(list) > maxNamespaces {
		return fatal("%s has %d entries, at most %d are allowed", field("device.lvm.nvmeInfo"), len(list), maxNamespaces)
	}
	for i, ns := range list {
		name := field(fmt.Sprintf("device.lvm.nvmeInfo[%d]", i))
		if !nqn(ns.DeviceSerial) {
			return refused(name+".deviceSerial", ns.DeviceSerial, "an NQN has 1 to 223 printable characters")
		}
		if _, err := strconv.ParseUint(ns.NamespaceID, 10, 32); err != nil {
			return refused(name+".namespaceID", ns.NamespaceID, "it is a decimal number of at most 32 bits")
		}
	}
	return nil
}

// only tells whether s is made of ASCII letters, digits and the given others.
func only(s, others string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !alnum(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func labelValue(s string) bool { return len(s) <= 63 && s != "" && alnum(s[0]) && only(s, "._-") }
func objectName(s string) bool { return len(s) <= 253 && s != "" && alnum(s[0]) && only(s, ".-") }
func lustreName(s string) bool { return len(s) <= 8 && s != "" && s[0] != '-' && only(s, "_-") }
func nidList(s string) bool    { return len(s) <= 4096 && s != "" && s[0] != '-' && only(s, ".:@,_-") }
func fsTypeWord(s string) bool { return len(s) <= 64 && s != "" && alnum(s[0]) && only(s, "._-") }

// nqn is generous, because vendors put blanks into NQNs; it is only compared.
func nqn(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxNQN
}
