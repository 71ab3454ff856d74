package plan

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxMounts bounds the entries of one ClientMount.
const maxMounts = 1024

// CheckObject checks the object as a whole, before its profile is read: it is for this
// node, its desired state is valid, and its paths do not collide. The error is a Fatal
// *dws.ResourceError.
func CheckObject(cm *dws.ClientMount, node string) error {
	if cm.Spec.Node != node {
		return fatal("the ClientMount is for node %s, but this is node %s", text.Quote(cm.Spec.Node), text.Quote(node))
	}
	if s := cm.Spec.DesiredState; s != dws.Mounted && s != dws.Unmounted {
		return fatal("invalid desired state %s", text.Unquoted(string(s)))
	}
	switch n := len(cm.Spec.Mounts); {
	case n == 0:
		return fatal("spec.mounts is empty")
	case n > maxMounts:
		return fatal("spec.mounts has %d entries, at most %d are allowed", n, maxMounts)
	}
	// Variables are not expanded yet. Whatever their values are, a path stays below the
	// path that it starts with.
	places := make([]place, len(cm.Spec.Mounts))
	for i := range places {
		places[i] = place{index: i, path: path.Clean(cm.Spec.Mounts[i].MountPath)}
	}
	return checkPlaces(places)
}

// CheckPlans returns an error for plans whose paths collide: paths that differ in
// CheckObject may be equal after the expansion of variables, and only the plan shows
// which target is a file. Plans may be nil. The error is a Fatal *dws.ResourceError.
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

// checkPlaces returns an error for two entries with the same path, for an inner path
// that comes before its outer path, whose mount would hide it, and for a path below a file.
func checkPlaces(places []place) error {
	// In this order a path directly follows the paths above it.
	slices.SortFunc(places, func(a, b place) int {
		if c := comparePaths(a.path, b.path); c != 0 {
			return c
		}
		return a.index - b.index
	})
	var outer []place // each one is below the previous one
	for _, p := range places {
		for len(outer) > 0 && outer[len(outer)-1].path != p.path && !safepath.Below(p.path, outer[len(outer)-1].path) {
			outer = outer[:len(outer)-1]
		}
		if len(outer) > 0 {
			o := outer[len(outer)-1]
			inner := fmt.Sprintf("%s %s is below %s %s", entryField(p.index, "mountPath"), text.Quote(p.path), entryField(o.index, "mountPath"), text.Quote(o.path))
			switch {
			case o.path == p.path:
				return fatal("%s and %s are the same path %s", entryField(o.index, "mountPath"), entryField(p.index, "mountPath"), text.Quote(p.path))
			case o.file:
				return fatal("%s, whose mount target is a file: use another path", inner)
			case o.index > p.index:
				return fatal("%s, which is mounted later and would hide it: list the outer path first", inner)
			}
		}
		outer = append(outer, p)
	}
	return nil
}

// comparePaths orders paths component by component: "/a", "/a/b", "/a-b".
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
// object's labels. The error is Fatal.
func ProfileRef(cm *dws.ClientMount) (namespace, name string, err error) {
	if len(cm.Labels) == 0 {
		return "", "", fatal("unable to find labels")
	}
	for _, key := range []string{api.LabelPinnedProfileName, api.LabelPinnedProfileNamespace} {
		switch value := cm.Label(key); {
		case value == "":
			return "", "", fatal("unable to find %s label", key)
		case !objectName(value):
			// It becomes part of a request path.
			return "", "", refused("label "+key, value, objectNameRule)
		}
	}
	return cm.Label(api.LabelPinnedProfileNamespace), cm.Label(api.LabelPinnedProfileName), nil
}

// CheckProfile returns an error for a profile that is not pinned, because it could change
// while a job runs. The error is Fatal.
func CheckProfile(p *nnf.StorageProfile) error {
	if !p.Data.Pinned {
		return fatal("Expected pinned NnfStorageProfile, but it was not pinned: %s", text.Unquoted(p.Name))
	}
	return nil
}

// maxNamespaces bounds the NVMe namespaces of one entry.
const maxNamespaces = 1024

// checkEntry returns an error for an entry with missing blocks, or with values that have
// a special meaning in a command, a path or a shell.
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
		return fatal("%s: unsupported file system type %s, expected lustre, xfs, gfs2 or none", field("type"), text.Quote(m.Type))
	}
	switch m.Device.Type {
	case dws.DeviceLustre, dws.DeviceLVM, dws.DeviceReference:
	default:
		return refused(field("device.type"), m.Device.Type, "expected lustre, lvm or reference")
	}
	// For chown(2), the largest 32-bit number means "do not change".
	for _, id := range []struct {
		name  string
		value int64
	}{{"userID", m.UserID}, {"groupID", m.GroupID}} {
		if id.value < 0 || id.value > math.MaxUint32 || m.SetPermissions && id.value == math.MaxUint32 {
			return refused(field(id.name), strconv.FormatInt(id.value, 10), "expected a number from 0 to 4294967294")
		}
	}

	ref := m.Device.DeviceReference
	switch {
	case ref == nil:
		return fatal("%s is missing", field("device.deviceReference"))
	case ref.Data < 0:
		return refused(field("device.deviceReference.data"), strconv.Itoa(ref.Data), "an index must not be negative")
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
			return refused(name+".namespaceID", ns.NamespaceID, "expected a decimal number of at most 32 bits")
		}
	}
	return nil
}

const (
	maxPath = 4095 // PATH_MAX without the terminating zero
	maxName = 255  // NAME_MAX

	pathLengthRule = "at most 4095 bytes are allowed"
)

// ErrOutsideRoots is in the chain of the error for a mount path that the site's
// Options.Roots do not allow.
var ErrOutsideRoots = errors.New("outside mount.roots")

// checkPath returns the clean form of a mount path, or an error if the path is dangerous
// or has a special meaning in a shell. It does not resolve symbolic links; the code that
// creates the target must not follow them.
func checkPath(field, p string, roots []string) (string, error) {
	switch {
	case p == "":
		return "", refused(field, p, "it is empty")
	case len(p) > maxPath:
		return "", refused(field, p, pathLengthRule)
	case p[0] != '/':
		return "", refused(field, p, "it must be absolute")
	}
	if i := strings.IndexByte(p, '$'); i >= 0 {
		return "", refused(field, p, "variable "+variableName(p[i:])+" is unknown")
	}
	if !safepath.MountPathText(p) {
		return "", refused(field, p, safepath.MountPathRule)
	}
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "." || name == "..":
			return "", refused(field, p, "it must not contain . or .. as a name")
		case len(name) > maxName:
			return "", refused(field, p, "at most 255 bytes are allowed in one name")
		}
	}

	p = path.Clean(p)
	if reason := safepath.DenyMount(p); reason != "" {
		return "", refused(field, p, reason)
	}
	inside := func(root string) bool { return safepath.Below(p, path.Clean(root)) }
	if len(roots) > 0 && !slices.ContainsFunc(roots, inside) {
		return "", dws.WrapError(dws.Fatal, "", fmt.Errorf("%s %s is refused: it is %w, which allows mounts only below %s",
			field, text.Quote(p), ErrOutsideRoots, strings.Join(roots, ", ")))
	}
	return p, nil
}

// The rules that are reported for a refused value.
const (
	labelRule      = "a label value has at most 63 characters of A-Z a-z 0-9 . _ - and starts with a letter or digit"
	objectNameRule = "the name of a Kubernetes object has 1 to 253 characters of a-z A-Z 0-9 . - and starts with a letter or digit"
	lustreNameRule = "the name of a Lustre file system has 1 to 8 characters of A-Z a-z 0-9 _ - and does not start with -"
	nidRule        = "NIDs consist of characters of A-Z a-z 0-9 . : @ , _ - and do not start with -"
	fsTypeRule     = "a file system type consists of characters of A-Z a-z 0-9 . _ - and starts with a letter or digit"
)

// maxNQN is the longest NVMe qualified name (NVMe base specification).
const maxNQN = 223

func labelValue(s string) bool {
	return len(s) <= 63 && s != "" && text.Alphanumeric(s[0]) && text.Only(s, "._-")
}
func objectName(s string) bool {
	return len(s) <= 253 && s != "" && text.Alphanumeric(s[0]) && text.Only(s, ".-")
}
func lustreName(s string) bool { return len(s) <= 8 && s != "" && s[0] != '-' && text.Only(s, "_-") }
func nidList(s string) bool {
	return len(s) <= 4096 && s != "" && s[0] != '-' && text.Only(s, ".:@,_-")
}
func fsTypeWord(s string) bool {
	return len(s) <= 64 && s != "" && text.Alphanumeric(s[0]) && text.Only(s, "._-")
}

// nqn reports whether s is accepted as an NQN. It allows blanks, because vendors use them;
// an NQN is only compared.
func nqn(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxNQN
}

// fatal returns an error with which the job fails: the object is wrong, so waiting does not
// help.
func fatal(format string, args ...any) *dws.ResourceError {
	return dws.NewError(dws.Fatal, fmt.Sprintf(format, args...))
}

// fault returns an error with which the job waits: the profile is wrong, and an
// administrator can correct it.
func fault(format string, args ...any) *dws.ResourceError {
	return dws.NewError(dws.Major, fmt.Sprintf(format, args...))
}

// refused returns a Fatal error with the field, its value and the rule.
func refused(field, value, rule string) *dws.ResourceError {
	return fatal("%s %s is refused: %s", field, text.Quote(value), rule)
}

func entryField(index int, name string) string {
	return "spec.mounts[" + strconv.Itoa(index) + "]." + name
}
