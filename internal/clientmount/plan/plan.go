// Package plan computes, from one entry of a ClientMount and the administrator's storage
// profile, a plan: the names of the volume, and the ordered steps that mount and unmount
// it. It also checks whether the daemon may act on an object at all, because other
// programs write the object and the steps run as root.
//
// It does not depend on how a step is carried out, and it reads and runs nothing: the
// same input gives the same plan on every machine, so table tests cover every rule.
package plan

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Plan is everything that is needed to mount and unmount one volume, even if its object
// and profile no longer exist. It can be encoded as JSON and decoded again without loss.
type Plan struct {
	Index     int    `json:"index"`            // index in spec.mounts
	Path      string `json:"path"`             // mount path: expanded, clean, checked
	Requested string `json:"asked,omitempty"`  // mount path before its symbolic links were resolved, if it has any
	Type      string `json:"type"`             // dws.TypeLustre, TypeXFS, TypeGFS2 or TypeRaw
	FSType    string `json:"fsType"`           // type for mount -t, also expected in the mount table
	VG        string `json:"vg,omitempty"`     // volume group; empty for lustre
	LV        string `json:"lv,omitempty"`     // logical volume; empty for lustre
	Device    string `json:"device,omitempty"` // /dev/mapper/<DMName>; empty for lustre
	DMName    string `json:"dmName,omitempty"` // device-mapper name, dashes doubled
	Lustre    Lustre `json:"lustre,omitzero"`  // set for lustre only
	Target    string `json:"target"`           // TargetFile or TargetDirectory

	NVMe   []dws.NVMeNamespace `json:"nvme,omitempty"`   // namespaces of the volume group; empty = unknown
	Rescan bool                `json:"rescan,omitempty"` // rescan NVMe and retry if the activation fails
	LinkTo string              `json:"linkTo,omitempty"` // target of the link at Path, kind mode only

	Mount   []Step `json:"mount"`
	Unmount []Step `json:"unmount"`
}

// Lustre identifies a Lustre file system as its clients see it.
type Lustre struct {
	MGS    string `json:"mgs"` // NIDs of the management servers, as written
	FSName string `json:"fsName"`
}

// The two kinds of mount target.
const (
	TargetFile      = "file"
	TargetDirectory = "directory"
)

// Step is one action. Besides its own fields it uses Path, Device, VG, LV and Target of
// the Plan.
type Step struct {
	Name  string   `json:"name"` // stable, unique in its list: "activate", "preMount[0]"
	Kind  Kind     `json:"kind"`
	Argv  []string `json:"argv,omitempty"`  // complete built-in command; runs without a shell
	Shell string   `json:"shell,omitempty"` // the administrator's command for bash -c; hooks only
	Fail  string   `json:"fail"`            // text that is reported if the step fails
	Hook  bool     `json:"hook,omitempty"`  // skipped once the mount is recorded as ready
	UID   uint32   `json:"uid,omitempty"`   // chown
	GID   uint32   `json:"gid,omitempty"`   // chown
}

// Kind selects how a step is carried out.
type Kind string

// The kinds of steps. The runner checks the state first, so each step can be repeated.
const (
	Hook        Kind = "hook"        // run Shell
	WaitVG      Kind = "waitVG"      // wait until the volume group VG is visible
	LockStart   Kind = "lockStart"   // run Argv
	Activate    Kind = "activate"    // run Argv unless the logical volume is active
	WaitDevice  Kind = "waitDevice"  // wait until Device exists
	Mount       Kind = "mount"       // create the target and run Argv, unless mounted
	Chown       Kind = "chown"       // change the owner of Path to UID and GID
	ServersFile Kind = "serversFile" // write the list of Lustre servers below Path; a failure is only logged
	Unmount     Kind = "unmount"     // run Argv if mounted, and remove the target
	Deactivate  Kind = "deactivate"  // run Argv if the logical volume is active
	LockStop    Kind = "lockStop"    // run Argv unless a volume of the group is active
	Link        Kind = "link"        // make Path a symbolic link to LinkTo
	Unlink      Kind = "unlink"      // remove the symbolic link at Path
)

// Source returns the source that the mount table shows for the volume: the device, or
// <NIDs>:/<file system> for lustre. Compare the latter with SameLustre.
func (p *Plan) Source() string {
	if p.Type == dws.TypeLustre {
		return p.Lustre.MGS + ":/" + p.Lustre.FSName
	}
	return p.Device
}

// RequestedPath returns the mount path in the object, before symbolic links were resolved.
func (p *Plan) RequestedPath() string {
	if p.Requested != "" {
		return p.Requested
	}
	return p.Path
}

// Volume returns a key that identifies the storage, wherever it is mounted: two plans
// have the same key exactly if they mount the same storage. In kind mode the storage is
// the target of the link. The key of a saved plan does not change.
func (p *Plan) Volume() string {
	switch {
	case p.LinkTo != "":
		return "link:" + p.LinkTo
	case p.Type == dws.TypeLustre:
		nids := slices.Sorted(maps.Keys(nidSet(p.Lustre.MGS)))
		return "lustre:" + strings.Join(nids, ",") + ":/" + p.Lustre.FSName
	}
	return "lvm:" + p.VG + "/" + p.LV
}

// SamePlace reports whether two plans are for the same storage at the same path, so that
// one can continue what the other has started.
func (p *Plan) SamePlace(o *Plan) bool {
	return p.Path == o.Path && p.Type == o.Type && p.Volume() == o.Volume()
}

// MountStep returns the first mount step of that kind, or nil.
func (p *Plan) MountStep(kind Kind) *Step {
	i := slices.IndexFunc(p.Mount, func(s Step) bool { return s.Kind == kind })
	if i < 0 {
		return nil
	}
	return &p.Mount[i]
}

// Releases reports whether the step releases the volume rather than the mount: the
// deactivation, the stop of the lockspace, and the hooks around them. These steps must
// not run while another mount of the same volume remains.
func (s *Step) Releases() bool {
	switch s.Kind {
	case Deactivate, LockStop:
		return true
	case Hook:
		list, _, _ := strings.Cut(s.Name, "[")
		return list == hooksPreDeactivate || list == hooksPostDeactivate
	}
	return false
}

// Values of Options.Mode. ModeKind and ModeMock are for test systems without block
// devices.
const (
	ModeReal = "real" // the empty string has the same meaning
	ModeKind = "kind" // a mount is a symbolic link; no commands, no hooks
	ModeMock = "mock" // no steps
)

// Options are the site's settings.
type Options struct {
	// Roots are the directories below which mounts are allowed; empty = anywhere except
	// in system directories. To mount, the daemon always sets some.
	Roots        []string
	MountOptions []string // for every file system, before those of the profile
	ServersFile  bool     // write the list of Lustre servers

	Mode     string // ModeReal, ModeKind or ModeMock
	MockPath string // base of links in kind mode; empty = /mnt/nnf

	// Real maps a mount path, in the form of Plan.Path, to the path with its symbolic
	// links resolved. The caller resolves them, because this package reads nothing, and
	// includes only links that may be followed. The real path replaces the mount path
	// everywhere in the plan.
	Real map[string]string
}

// ForMount plans entry index of cm with the commands of profile. It checks the entry
// first. The error is a *dws.ResourceError: Fatal if the object is refused, Major if the
// profile cannot be used, which an administrator can correct while the job waits.
func ForMount(cm *dws.ClientMount, index int, profile *nnf.StorageProfile, o Options) (*Plan, error) {
	p, err := forMount(cm, index, profile, o)
	if err == nil {
		return p, nil
	}
	if re := (*dws.ResourceError)(nil); errors.As(err, &re) {
		return nil, re
	}
	return nil, dws.WrapError(dws.Major, "", err)
}

func forMount(cm *dws.ClientMount, index int, profile *nnf.StorageProfile, o Options) (*Plan, error) {
	if cm == nil || index < 0 || index >= len(cm.Spec.Mounts) {
		return nil, fatal("spec.mounts has no entry %d", index)
	}
	if profile == nil {
		return nil, fault("no storage profile for spec.mounts[%d]", index)
	}
	m := &cm.Spec.Mounts[index]
	if err := checkEntry(cm, m, index); err != nil {
		return nil, err
	}
	p := &Plan{Index: index, Type: m.Type, FSType: m.Type, Target: TargetDirectory}

	var err error
	if m.Type == dws.TypeLustre {
		err = p.lustre(cm, m, profile, o)
	} else {
		err = p.block(cm, m, profile, o)
	}
	if err != nil {
		return nil, err
	}
	return p, p.mode(m, o)
}

// mountPath expands and checks the entry's path and sets Path. It returns the variables
// with $MOUNT_PATH, which takes precedence even over the profile's overrides.
func (p *Plan) mountPath(m *dws.Mount, v *variables, o Options) (*variables, error) {
	field := entryField(p.Index, "mountPath")
	if len(m.MountPath) > maxPath {
		// Check before the expansion, whose error would refer to the profile.
		return nil, refused(field, m.MountPath, pathLengthRule)
	}
	// $MOUNT_PATH inside mountPath refers to itself, which expand reports.
	expanded, err := v.with("$MOUNT_PATH", m.MountPath, true).expand(m.MountPath, everything)
	if err != nil {
		return nil, dws.WrapError(dws.Major, field, err)
	}
	if p.Path, err = checkPath(field, expanded, o.Roots); err != nil {
		return nil, err
	}
	if real, ok := o.Real[p.Path]; ok && real != p.Path {
		p.Requested = p.Path
		if p.Path, err = checkPath(field+" "+text.Quote(p.Path)+" leads through a symbolic link to", real, nil); err != nil {
			return nil, err
		}
	}
	return v.with("$MOUNT_PATH", p.Path, false), nil
}

// common returns the variables of every command.
func common(cm *dws.ClientMount, m *dws.Mount) []variable {
	return []variable{
		data("$JOBID", cm.Label(api.LabelJobID)),
		data("$DIRECTIVE_INDEX", cm.Label(api.LabelTargetDirectiveIndex)),
		data("$WORKFLOW_UID", cm.Label(api.LabelWorkflowUID)),
		data("$USERID", strconv.FormatInt(m.UserID, 10)),
		data("$GROUPID", strconv.FormatInt(m.GroupID, 10)),
	}
}

// mode replaces the steps on test systems. It runs after all checks, so a test system
// refuses the same objects as a real one.
func (p *Plan) mode(m *dws.Mount, o Options) error {
	switch o.Mode {
	case "", ModeReal:
		return nil
	case ModeMock:
		p.Mount, p.Unmount = []Step{}, []Step{}
		return nil
	case ModeKind:
	default:
		return fault("unknown mode %s, expected real, kind or mock", text.Quote(o.Mode))
	}

	name := m.Device.DeviceReference.ObjectReference.Name
	if name == "" {
		return refused(entryField(p.Index, "device.deviceReference.objectReference.name"), name, objectNameRule)
	}
	base := o.MockPath
	if base == "" {
		base = "mnt/nnf"
	}
	p.LinkTo = path.Join("/", base, name+"-"+strconv.Itoa(m.Device.DeviceReference.Data))
	if p.LinkTo == p.Path {
		return fatal("%s: the link would point to itself: %s", entryField(p.Index, "mountPath"), text.Quote(p.Path))
	}
	p.Mount = []Step{{Name: "link", Kind: Link, Fail: failMount}}
	p.Unmount = []Step{{Name: "unlink", Kind: Unlink, Fail: failUnmount}}
	return nil
}

// Fallback plans the unmount of a volume that has neither a profile nor a record: umount,
// deactivate, stop the lockspace. The caller does not know whether the volume group is
// shared, so it tries both and uses the plan whose volume is mounted. The plan has no
// hooks and no mount steps.
func Fallback(cm *dws.ClientMount, index int, shared bool, o Options) (*Plan, error) {
	p, err := ForMount(cm, index, fallbackProfile(shared), o)
	if err != nil {
		return nil, err
	}
	p.Mount = []Step{}
	return p, nil
}

func fallbackProfile(shared bool) *nnf.StorageProfile {
	var s nnf.Storage
	s.BlockDevice.SharedVG = shared
	s.BlockDevice.Compute.LVChange.Deactivate = "--activate n $VG_NAME/$LV_NAME"
	s.FileSystem.Compute.Unmount = "$MOUNT_PATH"

	p := &nnf.StorageProfile{}
	p.Data.Pinned = true
	p.Data.Raw, p.Data.XFS, p.Data.GFS2 = s, s, s
	p.Data.GFS2.BlockDevice.Compute.VGChange.LockStop = "--lock-stop $VG_NAME"
	p.Data.Lustre.Client.CommandLines.Unmount = "$MOUNT_PATH"
	return p
}
