package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var severalBehaviours = []behaviour{
	{"several mounts, undone in reverse", nil, several},
	{"one of several cannot be mounted", nil, oneFailsToMount},
	{"one of several cannot be unmounted", nil, oneFailsToUnmount},
	{"types in one object", xfsOnly, mixedTypes},
	{"many objects at once", nil, manyObjects},
}

func (s *env) three() []world.MountSpec {
	s.Helper()
	s.UseProfile(world.ProfileSpec{})
	var list []world.MountSpec
	for i := range 3 {
		list = append(list, s.storage(i, lab.VolumeOptions{}))
	}
	return list
}

func several(s *env) {
	list := s.three()
	s.run()
	s.MountAndWait("one", list...)
	var up, down []string
	for _, m := range list {
		s.mounted(m)
		s.owned(m)
		up = append(up, s.words(s.k.mount, m)...)
	}
	s.called(up...)
	s.Unmount("one")
	for i, m := range slices.Backward(list) {
		words := s.words(s.k.unmount, m)
		if s.k.locks && i > 0 { // the lock space is in use by the others
			words = words[:len(words)-1]
		}
		down = append(down, words...)
		s.unmounted(m)
	}
	s.called(down...)
	s.Delete("one")
	s.ends()
}

// readiness are the ready values of all mounts of an object.
func readiness(o lab.Object) string {
	mounts, _ := o.At("status", "mounts").([]any)
	var out []any
	for i := range mounts {
		out = append(out, o.At("status", "mounts", i, "ready"))
	}
	return fmt.Sprint(out)
}

func oneFailsToMount(s *env) {
	list := s.three()
	s.Must(s.Fault("mount", lab.Fault{Match: list[1].Path, Exit: 32, Stderr: "mount: told to fail"}))
	s.run()
	s.Mount("one", list...)
	o := s.failed("one", "Major", "mount/unmount failed: unable to mount file system: could not mount file system "+list[1].Path,
		"command: mount -t", "stderr: mount: told to fail", "error: exit status 32")
	if readiness(o) != "[true false true]" || o.At("status", "allReady") != false {
		s.Errorf("status %v", o["status"])
	}
	s.mounted(list[0])
	s.mounted(list[2])
	s.Must(s.ClearFaults())
	s.Await("one", "mounted")
	s.mounted(list[1])
	if s.get("one").At("status", "error") != nil {
		s.Errorf("the error outlived its cause")
	}
	s.Delete("one")
	s.ends()
}

func oneFailsToUnmount(s *env) {
	list := s.three()
	s.run()
	s.MountAndWait("one", list...)
	s.Must(s.Fault("umount", lab.Fault{Match: list[1].Path, Exit: 1, Stderr: "umount: told to fail"}))
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	o := s.failed("one", "Major", "mount/unmount failed: unable to unmount file system: could not unmount file system "+list[1].Path, "told to fail")
	if readiness(o) != "[true false true]" || o.At("status", "mounts", 0, "state") != "unmounted" {
		s.Errorf("status %v", o["status"])
	}
	s.unmounted(list[0])
	s.unmounted(list[2])
	s.mounted(list[1])
	s.Must(s.ClearLog())
	s.Must(s.ClearFaults())
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	for _, c := range s.commands() {
		if strings.Contains(c, list[0].Path) || strings.Contains(c, list[2].Path) {
			s.Errorf("called again for what was done: %s", c)
		}
	}
	s.ends()
}

// mixedTypes: one object may have mounts of different types.
func mixedTypes(s *env) {
	s.UseProfile(world.ProfileSpec{})
	raw := &kind{typ: "none", device: "lvm", file: true, lvm: true}
	lustre := &kind{typ: "lustre", device: "lustre"}
	list := []world.MountSpec{s.storage(0, lab.VolumeOptions{}), raw.spec(s.Path("raw"), 1), lustre.spec(s.Path("lustre"), 2)}
	s.volumes[1] = s.Volume(1, lab.VolumeOptions{Raw: true})
	s.run()
	s.MountAndWait("one", list...)
	for i, want := range []string{s.volumes[0].Node, "", mgs + ":/fs2"} {
		if m, ok, err := s.MountAt(list[i].Path); !ok || err != nil || want != "" && m.Source != want {
			s.Errorf("%s: %+v %v %v", list[i].Path, m, ok, err)
		}
	}
	s.Delete("one")
	s.ends()
}

// manyObjects: objects do not wait for one another, and none is forgotten.
func manyObjects(s *env) {
	list := s.three()
	s.run()
	for i, m := range list {
		s.Mount(fmt.Sprintf("cm-%d", i), m)
	}
	for i, m := range list {
		s.Await(fmt.Sprintf("cm-%d", i), "mounted")
		s.mounted(m)
	}
	for i := range list {
		s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, fmt.Sprintf("cm-%d", i)))
	}
	for i, m := range list {
		s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, fmt.Sprintf("cm-%d", i)))
		s.unmounted(m)
	}
	// The common parent stays when another object still used it as its maker
	// went; that one is not ours to remove any more.
	_ = os.Remove(s.Base)
	s.ends()
}
