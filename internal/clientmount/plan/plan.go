// Package plan turns one entry of a ClientMount and the administrator's
// storage profile into a plan: the names of the volume, and the ordered steps
// that mount and unmount it. It also judges whether an object may be acted on
// at all, because the object comes from somebody else and the steps run as
// root.
//
// It must not know how a step is carried out, and it reads and runs nothing:
// the same input gives the same plan on every machine, so every rule is a table
// test.
package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Plan is everything that is needed to mount and unmount one volume, also when
// the object and the profile that it was made from are gone. It survives JSON.
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
	Rescan bool                `json:"rescan,omitempty"` // rescan NVMe when activation fails (contract 5.4)
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
	Fail  string   `json:"fail"`            // what failed, in the words of contract 5.1
	Hook  bool     `json:"hook,omitempty"`  // skipped once the mount is recorded as ready
	UID   uint32   `json:"uid,omitempty"`   // chown
	GID   uint32   `json:"gid,omitempty"`   // chown
}

// Kind says what carries a step out.
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
