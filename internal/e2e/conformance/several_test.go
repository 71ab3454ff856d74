package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var severalBehaviours = []behaviour{
	{"several mounts, unmounted in reverse order", nil, several},
	{"one of several cannot be mounted", nil, oneFailsToMount},
	{"one of several cannot be unmounted", nil, oneFailsToUnmount},
	{"types in one object", xfsOnly, mixedTypes},
	{"many objects at the same time", nil, manyObjects},
}

func (s *env) three() []fixture.MountSpec {
	s.Helper()
	s.UseProfile(fixture.ProfileSpec{})
	var list []fixture.MountSpec
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
		if s.k.locks && i > 0 { // the other volumes use the lockspace
			words = words[:len(words)-1]
		}
		down = append(down, words...)
		s.unmounted(m)
	}
	s.called(down...)
	s.Delete("one")
	s.ends()
}

// readiness returns the ready values of all mounts of an object.
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
	s.Must(s.Fault("mount", lab.Fault{Match: list[1].Path, Exit: 32, Stderr: "mount: injected failure"}))
	s.run()
	s.Mount("one", list...)
	o := s.failed("one", "Major", "mount/unmount failed: unable to mount file system: could not mount file system "+list[1].Path,
		"command: mount -t", "stderr: mount: injected failure", "error: exit status 32")
	if readiness(o) != "[true false true]" || o.At("status", "allReady") != false {
		s.Errorf("status %v", o["status"])
	}
	s.mounted(list[0])
	s.mounted(list[2])
	s.Must(s.ClearFaults())
	s.Await("one", "mounted")
	s.mounted(list[1])
	if s.get("one").At("status", "error") != nil {
		s.Errorf("the error is still in the status")
	}
	s.Delete("one")
	s.ends()
}

func oneFailsToUnmount(s *env) {
	list := s.three()
	s.run()
	s.MountAndWait("one", list...)
	s.Must(s.Fault("umount", lab.Fault{Match: list[1].Path, Exit: 1, Stderr: "umount: injected failure"}))
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	o := s.failed("one", "Major", "mount/unmount failed: unable to unmount file system: could not unmount file system "+list[1].Path, "injected failure")
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
			s.Errorf("called again: %s", c)
		}
	}
	s.ends()
}

// mixedTypes: one object may have mounts of different types.
func mixedTypes(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	raw := &kind{typ: "none", device: "lvm", file: true, lvm: true}
	lustre := &kind{typ: "lustre", device: "lustre"}
	list := []fixture.MountSpec{s.storage(0, lab.VolumeOptions{}), raw.spec(s.Path("raw"), 1), lustre.spec(s.Path("lustre"), 2)}
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

// manyObjects: objects do not wait for each other, and all are mounted.
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
	// The common parent stays if another object still used it when the object that created
	// it was unmounted.
	_ = os.Remove(s.Base)
	s.ends()
}
