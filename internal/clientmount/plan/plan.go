// Package plan turns one entry of a ClientMount and the administrator's
// storage profile into a plan: the names of the volume, and the ordered steps
// that mount and unmount it. It also judges whether an object may be acted on
// at all, because others write the object and the steps run as root.
//
// It must not know how a step is carried out, and it reads and runs nothing:
// the same input gives the same plan on every machine, so every rule is a table
// test.
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

// Plan is everything that is needed to mount and unmount one volume, even if the
// object and the profile that it was made from are gone. It survives JSON.
type Plan struct {
	Index  int    `json:"index"`            // place in spec.mounts
	Path   string `json:"path"`             // mount path: expanded, clean, checked
	Asked  string `json:"asked,omitempty"`  // mount path before its symbolic links were resolved, if it has any
	Type   string `json:"type"`             // dws.TypeLustre, TypeXFS, TypeGFS2 or TypeRaw
	FSType string `json:"fsType"`           // what is passed to mount -t and expected in the mount table
	VG     string `json:"vg,omitempty"`     // volume group; empty for lustre
	LV     string `json:"lv,omitempty"`     // logical volume; empty for lustre
	Device string `json:"device,omitempty"` // /dev/mapper/<DMName>; empty for lustre
	DMName string `json:"dmName,omitempty"` // device-mapper name, dashes doubled
	Lustre Lustre `json:"lustre,omitzero"`  // set for lustre only
	Target string `json:"target"`           // TargetFile or TargetDirectory

	NVMe   []dws.NVMeNamespace `json:"nvme,omitempty"`   // namespaces below the volume group; none = unknown
	Rescan bool                `json:"rescan,omitempty"` // rescan NVMe and retry when activation fails
	LinkTo string              `json:"linkTo,omitempty"` // what Path is a link to, kind mode only

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

// Step is one thing to do. What it acts on besides its own fields is in the
// Plan: Path, Device, VG, LV, Target.
type Step struct {
	Name  string   `json:"name"` // stable, unique in its list: "activate", "preMount[0]"
	Kind  Kind     `json:"kind"`
	Argv  []string `json:"argv,omitempty"`  // complete command of a built-in verb; never goes through a shell
	Shell string   `json:"shell,omitempty"` // the administrator's line for bash -c; hooks only
	Fail  string   `json:"fail"`            // what failed; the text that is reported
	Hook  bool     `json:"hook,omitempty"`  // skipped once the mount is recorded as ready
	UID   uint32   `json:"uid,omitempty"`   // chown
	GID   uint32   `json:"gid,omitempty"`   // chown
}

// Kind selects how a step is carried out.
type Kind string

// The kinds of step. The runner looks before it acts, so each may be repeated.
const (
	Hook        Kind = "hook"        // run Shell
	WaitVG      Kind = "waitVG"      // until the volume group VG is visible
	LockStart   Kind = "lockStart"   // run Argv
	Activate    Kind = "activate"    // run Argv unless the logical volume is active
	WaitDevice  Kind = "waitDevice"  // until Device exists
	Mount       Kind = "mount"       // run Argv unless mounted; makes the target
	Chown       Kind = "chown"       // give Path to UID and GID
	ServersFile Kind = "serversFile" // write the list of Lustre servers below Path; a failure is only logged
	Unmount     Kind = "unmount"     // run Argv if mounted; removes the target
	Deactivate  Kind = "deactivate"  // run Argv if the logical volume is active
	LockStop    Kind = "lockStop"    // run Argv unless a volume of the group is active
	Link        Kind = "link"        // make Path a symbolic link to LinkTo
	Unlink      Kind = "unlink"      // remove the symbolic link at Path
)

// Source is the source that the mount table shows for the volume: the device,
// or <NIDs>:/<file system> for lustre. Compare the latter with SameLustre.
func (p *Plan) Source() string {
	if p.Type == dws.TypeLustre {
		return p.Lustre.MGS + ":/" + p.Lustre.FSName
	}
	return p.Device
}

// AskedPath is the mount path that the object asks for.
func (p *Plan) AskedPath() string {
	if p.Asked != "" {
		return p.Asked
	}
	return p.Path
}

// Volume is a key that identifies the storage itself, wherever it is mounted:
// two plans have the same key exactly if they mount the same storage. In kind
// mode that is what the link points to. Plans that were stored have the same key
// as plans that were made now.
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

// SamePlace reports whether two plans are about the same storage at the same
// path, so that one can continue what the other started.
func (p *Plan) SamePlace(o *Plan) bool {
	return p.Path == o.Path && p.Type == o.Type && p.Volume() == o.Volume()
}

// MountStep returns the first step of the kind that mounts, or nil.
func (p *Plan) MountStep(kind Kind) *Step {
	i := slices.IndexFunc(p.Mount, func(s Step) bool { return s.Kind == kind })
	if i < 0 {
		return nil
	}
	return &p.Mount[i]
}

// Releases reports whether the step gives up the volume rather than the mount:
// deactivation, the end of the lock space, and the hooks around them. While
// another mount of the same volume remains, these steps must not run.
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

// Values of Options.Mode. The last two are for test systems without block
// devices.
const (
	ModeReal = "real" // also the empty string
	ModeKind = "kind" // a mount is a symbolic link; no commands, no hooks
	ModeMock = "mock" // nothing happens at all
)

// Options are the site's settings.
type Options struct {
	// Roots are the directories below which mounts are allowed; empty = anywhere
	// but system directories. A daemon that mounts always has some.
	Roots        []string
	MountOptions []string // of every file system, in front of the profile's own
	ServersFile  bool     // write the list of Lustre servers where the object asks for it

	Mode     string // ModeReal, ModeKind or ModeMock
	MockPath string // base of links in kind mode; empty = /mnt/nnf

	// Real maps a mount path, as Plan.Path has it, to the path without its
	// symbolic links. The caller resolves them, because a plan reads nothing, and
	// enters only links that may be followed. The real path replaces the other one
	// everywhere.
	Real map[string]string
}

// ForMount plans entry index of cm with the commands of profile. Everything in
// the entry is checked before anything else. The error is a *dws.ResourceError:
// Fatal if the object is refused, Major if the profile cannot be used, which
// an administrator can correct while the job waits.
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

// mountPath expands and checks the entry's path and sets Path. It returns the
// variables with $MOUNT_PATH as the operation sets it: that one beats even the
// profile's overrides.
func (p *Plan) mountPath(m *dws.Mount, v *variables, o Options) (*variables, error) {
	field := entryField(p.Index, "mountPath")
	if len(m.MountPath) > maxPath {
		// Before the expansion, whose error would be about the profile.
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
		p.Asked = p.Path
		if p.Path, err = checkPath(field+" "+text.Quote(p.Path)+" leads through a symbolic link to", real, nil); err != nil {
			return nil, err
		}
	}
	return v.with("$MOUNT_PATH", p.Path, false), nil
}

// common are the variables of every command.
func common(cm *dws.ClientMount, m *dws.Mount) []variable {
	return []variable{
		data("$JOBID", cm.Label(api.LabelJobID)),
		data("$DIRECTIVE_INDEX", cm.Label(api.LabelTargetDirectiveIndex)),
		data("$WORKFLOW_UID", cm.Label(api.LabelWorkflowUID)),
		data("$USERID", strconv.FormatInt(m.UserID, 10)),
		data("$GROUPID", strconv.FormatInt(m.GroupID, 10)),
	}
}

// mode replaces the steps on test systems. All checks have been made by then, so
// that a test system refuses what a real one would refuse.
func (p *Plan) mode(m *dws.Mount, o Options) error {
	switch o.Mode {
	case "", ModeReal:
		return nil
	case ModeMock:
		p.Mount, p.Unmount = []Step{}, []Step{}
		return nil
	case ModeKind:
	default:
		return fault("unknown mode %s: it is real, kind or mock", text.Quote(o.Mode))
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

// Fallback plans the removal of a volume whose profile is gone and of which no
// record was kept: umount, deactivate, stop the lock space. Whether the volume
// group was shared is not known then, so the caller tries both and uses the plan whose
// volume is mounted. No hooks run. It has no steps to mount.
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
