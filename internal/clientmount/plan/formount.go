package plan

import (
	"errors"
	"strconv"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// Values of Options.Mode. The last two are for test systems without block
// devices (contract clientmountd.md 7.4).
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

	// Real maps a mount path, as Plan.Path has it, to the path that it is when
	// its symbolic links are resolved. The caller looks, because a plan reads
	// nothing, and enters only links that may be followed. The real path
	// replaces the other one everywhere.
	Real map[string]string
}

// ForMount plans entry index of cm with the commands of profile. Everything in
// the entry is checked before anything else. The error is a *dws.ResourceError:
// Fatal when the object is refused, Major when the profile cannot be used, which
// an administrator can mend while the job waits.
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
		// Before the expansion, which would blame the profile.
		return nil, refused(field, m.MountPath, pathLengthRule)
	}
	// $MOUNT_PATH inside mountPath stands for itself.
	text, err := v.with("$MOUNT_PATH", m.MountPath, true).expand(m.MountPath, everything)
	if err != nil {
		return nil, dws.WrapError(dws.Major, field, err)
	}
	if p.Path, err = checkPath(field, text, o.Roots); err != nil {
		return nil, err
	}
	if real, ok := o.Real[p.Path]; ok && real != p.Path {
		p.Asked = p.Path
		if p.Path, err = checkPath(field+" "+quote(p.Path)+" leads through a symbolic link to", real, nil); err != nil {
			return nil, err
		}
	}
	return v.with("$MOUNT_PATH", p.Path, false), nil
}

// common are the variables of every command (contract clientmountd.md 6.2).
func common(cm *dws.ClientMount, m *dws.Mount) []variable {
	return []variable{
		data("$JOBID", cm.Label(api.LabelJobID)),
		data("$DIRECTIVE_INDEX", cm.Label(api.LabelTargetDirectiveIndex)),
		data("$WORKFLOW_UID", cm.Label(api.LabelWorkflowUID)),
		data("$USERID", strconv.FormatInt(m.UserID, 10)),
		data("$GROUPID", strconv.FormatInt(m.GroupID, 10)),
	}
}
