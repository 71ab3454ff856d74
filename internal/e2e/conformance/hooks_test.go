package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var hookBehaviours = []behaviour{
	{"hooks in order, with variables", nil, hooksInOrder},
	{"hooks not repeated after success", nil, hooksOnce},
	{"failing hook is reported and repeated", nil, hooksRepeated},
}

// Values in hooks, by hook list. Each hook calls dlm_tool, whose fake only logs the call in
// order with the other calls.
const (
	blockVars  = "$JOBID $DIRECTIVE_INDEX $WORKFLOW_UID $USERID $VG_NAME $LV_NAME $LV_INDEX $DEVICE_NUM"
	fileVars   = "$JOBID $GROUPID $DEVICE $FSTYPE $MOUNT_TARGET $MOUNT_PATH"
	lustreVars = "$JOBID $MGS_NID $FS_NAME $INDEX $MOUNT_PATH"
)

func (k *kind) block(list string) bool { return strings.HasSuffix(list, "ctivate") }

func (k *kind) vars(list string) string {
	switch {
	case k.typ == "lustre":
		return lustreVars
	case k.block(list):
		return blockVars
	}
	return fileVars
}

// hookProfile returns a profile with two commands in each hook list: one with variables,
// and one that needs a shell.
func (s *env) hookProfile() fixture.ProfileSpec {
	hooks := fixture.Hooks{}
	for _, list := range slices.Concat(s.k.up, s.k.down) {
		hooks[list] = []string{
			"dlm_tool " + list + " " + s.k.vars(list) + " >/dev/null",
			"echo output of " + list + "; dlm_tool " + list + " again | grep -q lockspaces",
		}
	}
	return fixture.ProfileSpec{Hooks: map[string]fixture.Hooks{s.k.typ: hooks}}
}

// hookCalls returns the calls of one hook list, with the values of the variables.
func (s *env) hookCalls(list string, m fixture.MountSpec) []string {
	vg, lv := "", ""
	if v := s.volumes[m.Index]; v != nil {
		vg, lv = v.VG, v.LV
	}
	target := "directory"
	if s.k.file {
		target = "file"
	}
	values := strings.NewReplacer(
		"$JOBID", "f9Tk", "$DIRECTIVE_INDEX", "0", "$WORKFLOW_UID", fixture.WorkflowUID,
		"$USERID", fmt.Sprint(m.UID), "$GROUPID", fmt.Sprint(m.GID), "$VG_NAME", vg, "$LV_NAME", lv,
		"$LV_INDEX", fmt.Sprint(m.Index), "$INDEX", fmt.Sprint(m.Index), "$DEVICE_NUM", "0", "$DEVICE", s.source(m.Index),
		"$FSTYPE", s.k.typ, "$MOUNT_TARGET", target, "$MOUNT_PATH", m.Path, "$MGS_NID", mgs, "$FS_NAME", fsName(m.Index))
	return []string{"dlm_tool " + list + " " + values.Replace(s.k.vars(list)), "dlm_tool " + list + " again"}
}

// withHooks returns the calls of the kind's tables together with those of the hooks.
func (s *env) withHooks(m fixture.MountSpec) (mount, unmount []string) {
	up, down := s.words(s.k.mount, m), s.words(s.k.unmount, m)
	last := len(up) - 1
	h := func(list string) []string {
		if !s.k.lvm && s.k.block(list) {
			return nil
		}
		return s.hookCalls(list, m)
	}
	mount = slices.Concat(h("preActivate"), up[:last], h("postActivate"), h("preMount"), up[last:], h("postMount"))
	unmount = slices.Concat(h("preUnmount"), down[:1], h("postUnmount"), h("preDeactivate"), down[1:], h("postDeactivate"))
	return mount, unmount
}

func hooksInOrder(s *env) {
	m := s.readyWith(s.hookProfile())
	mount, unmount := s.withHooks(m)
	s.MountAndWait("one", m)
	s.called(mount...)
	s.Unmount("one")
	s.called(unmount...)
	for _, list := range slices.Concat(s.k.up, s.k.down) {
		f := s.line("with the output of "+list, func(f map[string]any) bool {
			return f["msg"] == "hook output" && f["output"] == "output of "+list
		})
		if f["clientmount"] != "one" || f["workflow"] != "job7" || f["mount_path"] != m.Path || f["phase"] != list+"[1]" || f["duration_ms"] == nil {
			s.Errorf("fields of the line: %v", f)
		}
	}
	s.Delete("one")
	s.called() // nothing, because hooks may have stopped services that another unmount would need
	s.ends()
}

// hooksOnce: when the desired state is reached, neither a change of the object nor a
// restart of the daemon runs hooks again.
func hooksOnce(s *env) {
	m := s.readyWith(s.hookProfile(), "--log-level=debug")
	s.MountAndWait("one", m)
	s.Must(s.ClearLog())
	s.logged("ClientMount is mounted", "one")
	again := func(what string, n int) {
		passes := 0
		s.line("after "+what, func(f map[string]any) bool {
			if f["msg"] == "ClientMount is mounted" {
				passes++
			}
			return passes == n
		})
		for _, c := range s.commands() {
			if strings.HasPrefix(c, "dlm_tool") || strings.HasPrefix(c, "mount") {
				s.Errorf("called again after %s: %s", what, c)
			}
		}
		s.Must(s.ClearLog())
		s.mounted(m)
	}
	_, err := s.Cluster.Patch(s.Context(patience), "ClientMount", s.Node, "one",
		lab.Object{"metadata": lab.Object{"labels": lab.Object{"example.org/changed": "yes"}}})
	s.Must(err)
	again("a new label", 2)
	s.stops()
	s.run("--log-level=debug")
	again("a restart", 1)
	s.Delete("one")
	s.Must(s.ClearLog())
	s.ends()
}

// The exact texts that are reported if a list fails.
var hookTexts = map[string]string{
	"preActivate":    "unable to run block device PreActivate commands",
	"postActivate":   "unable to run block device PostActivate commands",
	"preMount":       "unable to run file system PreMount commands",
	"postMount":      "unable to run file system PostMount commands",
	"preUnmount":     "unable to run file system PreUnmount commands",
	"postUnmount":    "unable to run file system PostUnmount commands",
	"preDeactivate":  "unable to run block device PreDeactivate commands",
	"postDeactivate": "unable to run block device PostDeactivate commands",
}

// hooksRepeated: each list fails once, in turn. The status has the list and the cause, and
// the next attempt starts with the first hook but mounts nothing twice.
func hooksRepeated(s *env) {
	m := s.readyWith(s.hookProfile())
	s.MountAndWait("none", m)
	s.Delete("none")
	for _, phase := range []struct {
		state string
		lists []string
		verb  string
	}{{"mounted", s.k.up, "mount "}, {"unmounted", s.k.down, "umount "}} {
		for _, list := range phase.lists {
			name := strings.ToLower(list)
			if phase.state == "unmounted" {
				s.MountAndWait(name, m)
			}
			s.Must(s.ClearLog())
			s.Must(s.Fault("dlm_tool", lab.Fault{Match: list, Exit: 3, Stderr: "no luck with " + list}))
			if phase.state == "mounted" {
				s.Mount(name, m)
			} else {
				s.Want(name, "unmounted")
			}
			o := s.failed(name, "Major", "mount/unmount failed: "+hookTexts[list]+": command: dlm_tool "+list, "stderr: no luck with "+list, "exit status 3")
			if o.At("status", "mounts", 0, "ready") != false || o.At("status", "mounts", 0, "state") != phase.state {
				s.Errorf("%s: status %v", list, o["status"])
			}
			s.Must(s.ClearFaults())
			s.Await(name, phase.state)
			count := func(prefix string) (n int) {
				for _, c := range s.commands() {
					if strings.HasPrefix(c, prefix) {
						n++
					}
				}
				return n
			}
			first := phase.lists[0]
			if n := count("dlm_tool " + first + " f9Tk"); n < 2 {
				s.Errorf("%s failed: the first hook ran %d times", list, n)
			}
			if n := count(phase.verb); n != 1 {
				s.Errorf("%s failed: %swas called %d times", list, phase.verb, n)
			}
			s.Delete(name)
			s.unmounted(m)
		}
	}
	s.ends()
}
