package plan

import (
	"fmt"
	"math"
	"strconv"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// maxNamespaces bounds the NVMe namespaces of one entry.
const maxNamespaces = 1024

// checkEntry refuses an entry with missing blocks or with values that could
// mean something to a command, a path or a shell.
func checkEntry(cm *dws.ClientMount, m *dws.Mount, index int) error {
	for _, key := range []string{api.LabelJobID, api.LabelTargetDirectiveIndex, api.LabelTargetOwnerUID, api.LabelWorkflowUID} {
		if v := cm.Label(key); v != "" && !labelValue(v) {
			return refused("label "+key, v, labelRule)
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
	// chown(2) takes the largest 32-bit number for "leave as it is".
	for _, id := range []struct {
		name  string
		value int64
	}{{"userID", m.UserID}, {"groupID", m.GroupID}} {
		if id.value < 0 || id.value > math.MaxUint32 || m.SetPermissions && id.value == math.MaxUint32 {
			return refused(field(id.name), strconv.FormatInt(id.value, 10), "a number from 0 to 4294967294")
		}
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
