package plan

import (
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Texts that are reported when a step fails. Administrators search for them and scripts
// match them, so they do not change.
const (
	failPreActivate    = "unable to run block device PreActivate commands"
	failActivate       = "unable to activate block device"
	failPostActivate   = "unable to run block device PostActivate commands"
	failPreMount       = "unable to run file system PreMount commands"
	failMount          = "unable to mount file system"
	failChown          = "unable to set owner and group for file system"
	failServersFile    = "unable to dump servers resource to file on clientmount path"
	failPostMount      = "unable to run file system PostMount commands"
	failPreUnmount     = "unable to run file system PreUnmount commands"
	failUnmount        = "unable to unmount file system"
	failPostUnmount    = "unable to run file system PostUnmount commands"
	failPreDeactivate  = "unable to run block device PreDeactivate commands"
	failDeactivate     = "unable to deactivate block device"
	failPostDeactivate = "unable to run block device PostDeactivate commands"
)

// Names of the hook lists that belong to the release of a volume, see Step.Releases.
const (
	hooksPreDeactivate  = "preDeactivate"
	hooksPostDeactivate = "postDeactivate"
)

// maxHooks bounds one list of hook commands, because the plan is saved to disk.
const maxHooks = 256

// sequence collects steps and keeps the first error, so that callers can list one step
// per line.
type sequence struct {
	steps []Step
	err   error
}

func (s *sequence) add(step Step) { s.steps = append(s.steps, step) }

func (s *sequence) fail(text string, err error) {
	if s.err == nil {
		s.err = dws.WrapError(dws.Major, text, err)
	}
}

// hooks adds the administrator's hook commands with variables expanded as text. Data
// values contain no shell syntax, because they were checked before.
func (s *sequence) hooks(name, fail string, v *variables, lines []string) {
	if len(lines) > maxHooks {
		s.fail(fail, fault("the profile has %d %s lines, at most %d are allowed", len(lines), name, maxHooks))
		return
	}
	for i, line := range lines {
		if blank(line) {
			continue
		}
		step := fmt.Sprintf("%s[%d]", name, i)
		text, err := v.expand(line, everything)
		if err == nil && strings.ContainsRune(text, 0) {
			err = fault("the line contains a NUL character")
		}
		if err != nil {
			s.fail(fail, dws.WrapError(dws.Major, step, err))
			return
		}
		s.add(Step{Name: step, Kind: Hook, Shell: text, Fail: fail, Hook: true})
	}
}

// verb adds a built-in command: the program and fixed arguments, then the words of the
// profile's template. An empty template disables the step.
func (s *sequence) verb(name string, kind Kind, fail string, v *variables, template string, program ...string) {
	if blank(template) {
		return
	}
	args, err := v.words(template)
	if err == nil && len(args) == 0 {
		// "vgchange" without arguments acts on every volume group.
		err = fault("%s is empty after expansion", text.Quote(template))
	}
	if err != nil {
		s.fail(fail, dws.WrapError(dws.Major, program[0], err))
		return
	}
	s.add(Step{Name: name, Kind: kind, Fail: fail, Argv: append(program, args...)})
}

// BuiltinUnmount returns the unmount step for a profile without an unmount command: plain
// umount(8).
func (p *Plan) BuiltinUnmount() Step {
	return Step{Name: "unmount", Kind: Unmount, Fail: failUnmount, Argv: []string{"umount", p.Path}}
}

// mountProgram returns mount(8) with the arguments that precede those of the profile. The
// site's options come first, because the last of two contradictory options wins. A bind
// mount gets none: it binds a device node, which nodev would make unusable.
func (p *Plan) mountProgram(o Options) []string {
	argv := []string{"mount", "-t", p.FSType}
	if p.FSType != dws.TypeRaw && len(o.MountOptions) > 0 {
		argv = append(argv, "-o", strings.Join(o.MountOptions, ","))
	}
	return argv
}

// unmount adds the unmount command. A profile with only a mount command gets plain
// umount(8), because reporting success while the file system is mounted would leak the
// storage. Without either command there is no step, because the plan mounts nothing.
func (s *sequence) unmount(p *Plan, v *variables, mount, unmount string) {
	if blank(unmount) && !blank(mount) {
		s.add(p.BuiltinUnmount())
		return
	}
	s.verb("unmount", Unmount, failUnmount, v, unmount, "umount")
}

// permissions adds the step that sets the owner of the mounted file system.
func (s *sequence) permissions(m *dws.Mount) {
	if m.SetPermissions {
		s.add(Step{Name: "chown", Kind: Chown, Fail: failChown, UID: uint32(m.UserID), GID: uint32(m.GroupID)})
	}
}

// serversFile adds the step that writes the list of Lustre servers, if the site has
// enabled it and the object belongs to an NnfStorage, through which the servers are found.
func (s *sequence) serversFile(cm *dws.ClientMount, m *dws.Mount, o Options) {
	if o.ServersFile && cm.Label(api.LabelOwnerKind) == "NnfStorage" {
		s.add(Step{Name: "serversFile", Kind: ServersFile, Fail: failServersFile, UID: uint32(m.UserID), GID: uint32(m.GroupID)})
	}
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }
