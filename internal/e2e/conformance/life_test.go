package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

var lifeBehaviours = []behaviour{
	{"full lifecycle", nil, fullLifecycle},
	{"back and forth", nil, backAndForth},
	{"deletion while mounted", nil, deletedWhileMounted},
	{"restart changes nothing", nil, restart},
	{"older API version", nil, olderVersion},
	{"fields of other programs are kept", nil, othersSurvive},
	{"slow mount publishes progress", xfsOnly, slowMount},
	{"existing target", nil, existingTarget},
	{"file at the raw target", rawOnly, fileInTheWay},
}

// fullLifecycle checks the normal lifecycle of a ClientMount: each visible state, each call of a
// program, and each write.
func fullLifecycle(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	proxy := s.UseProxy()
	s.run()
	states := s.follow("one")
	s.late("one", mountstate.Mounted, "ClientMount one has not arrived on this node")
	reached := s.waits(mountstate.Mounted)
	s.MountAndWait("one", m)
	reached()
	s.mounted(m)
	s.shows("one", mountstate.Mounted)
	s.late("one", mountstate.Unmounted, " mounted for ")
	s.owned(m)
	f := s.logged("mounted file system", "one")
	for field, want := range map[string]any{"workflow": "job7", "mount_path": m.Path, "type": s.k.typ} {
		if f[field] != want {
			s.Errorf("the log has %s=%v, want %v", field, f[field], want)
		}
	}
	s.called(s.words(s.k.mount, m)...)
	reached = s.waits(mountstate.Unmounted)
	s.Unmount("one")
	reached()
	s.unmounted(m)
	s.shows("one", mountstate.Unmounted)
	s.called(s.words(s.k.unmount, m)...)
	s.Delete("one")
	s.called()
	s.timeline("one", s.k.steps...)
	s.fine()
	want := []string{
		"no finalizer", "held", "held mounted:true all", "held unmounted:true all", "held deleted unmounted:true all", "gone",
	}
	if got := states(); !slices.Equal(got, want) {
		s.Errorf("states:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	if n := writes(proxy); n > 4 || n == 0 {
		s.Errorf("%d writes", n)
	}
	if n := proxy.Count(lab.ClassUpdate); n != 0 {
		s.Errorf("%d updates of whole objects, which drop fields of newer versions", n)
	}
	if l, err := s.d.Listeners(); err != nil || len(l) > 0 {
		s.Errorf("the daemon listens on TCP: %v %v", l, err)
	}
	s.ends()
}

func backAndForth(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	for range 2 {
		s.Unmount("one")
		s.unmounted(m)
		s.Must(s.ClearLog())
		s.Want("one", "mounted")
		s.Await("one", "mounted")
		s.mounted(m)
		s.called(s.words(s.k.mount, m)...)
	}
	// The desired state changes while the daemon works on an earlier one: the last change
	// determines the result. The status can be that of the first, which was the same.
	s.Want("one", "unmounted")
	s.Want("one", "mounted")
	s.Unmount("one")
	wait.Until(s.t, "the target of "+m.Path+" is gone", func() bool {
		_, err := os.Lstat(m.Path)
		return os.IsNotExist(err)
	})
	s.Delete("one")
	s.ends()
}

func deletedWhileMounted(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	s.Must(s.ClearLog())
	s.Delete("one")
	s.unmounted(m)
	s.called(s.words(s.k.unmount, m)...)
	s.ends()
}

// restart: mounts stay when the daemon is restarted. The daemon finds them, mounts nothing
// twice and writes nothing.
func restart(s *env) {
	m := s.ready()
	s.Mount("one", m)
	before := s.Await("one", "mounted").String("metadata", "resourceVersion")
	for range 2 {
		s.stops()
		s.mounted(m)
		s.Must(s.ClearLog())
		proxy := s.UseProxy()
		s.run("--log-level=debug")
		s.logged("ClientMount is mounted", "one")
		s.mounted(m)
		if n := writes(proxy); n > 0 {
			s.Errorf("%d writes although nothing had changed", n)
		}
		for _, line := range s.commands() {
			if strings.HasPrefix(line, "mount ") || strings.HasPrefix(line, "lvchange ") {
				s.Errorf("called again: %s", line)
			}
		}
		if now := s.get("one").String("metadata", "resourceVersion"); now != before {
			s.Errorf("a restart changed the object: %s became %s", before, now)
		}
	}
	s.Delete("one")
	s.unmounted(m)
	s.ends()
}

// olderVersion: an object that a rabbit of the previous release creates.
func olderVersion(s *env) {
	m := s.ready()
	o := fixture.ClientMount("one", s.Node, fixture.ClientMountSpec{Profile: s.Profile, OwnerUID: s.Owner, Mounts: []fixture.MountSpec{m}})
	o["apiVersion"] = api.GroupDWS + "/" + api.VersionsDWS[1]
	body, err := json.Marshal(o)
	s.Must(err)
	path := strings.Replace(lab.Path("ClientMount", s.Node, ""), api.VersionsDWS[0], api.VersionsDWS[1], 1)
	_, err = s.Cluster.Do(s.Context(patience), http.MethodPost, path, "application/json", body)
	s.Must(err)
	s.Await("one", "mounted")
	s.mounted(m)
	old, err := s.Cluster.Do(s.Context(patience), http.MethodGet, path+"/one", "", nil)
	if err != nil || !old.Ready("mounted") {
		s.Errorf("read in the old version: %v %v", old["status"], err)
	}
	_, err = s.Cluster.PatchPath(s.Context(patience), path+"/one", "application/merge-patch+json", lab.Object{"spec": lab.Object{"desiredState": "unmounted"}})
	s.Must(err)
	s.Await("one", "unmounted")
	s.Delete("one")
	s.ends()
}

// othersSurvive: labels, annotations and finalizers of other programs are kept, and the
// object stays until their finalizers are removed, too.
func othersSurvive(s *env) {
	m := s.ready()
	o := fixture.ClientMount("one", s.Node, fixture.ClientMountSpec{Profile: s.Profile, OwnerUID: s.Owner, Mounts: []fixture.MountSpec{m}})
	meta := o["metadata"].(map[string]any)
	meta["annotations"] = map[string]any{"example.org/note": "kept"}
	meta["finalizers"] = []any{"example.org/first"}
	s.Apply(o)
	s.Await("one", "mounted")
	now := s.get("one")
	if got := now.At("metadata", "finalizers"); fmt.Sprint(got) != "[example.org/first "+api.FinalizerClientMount+"]" {
		s.Errorf("finalizers %v", got)
	}
	second := lab.Object{"metadata": lab.Object{
		"annotations": lab.Object{"example.org/later": "kept too"},
		"finalizers":  []any{"example.org/first", api.FinalizerClientMount, "example.org/last"},
	}}
	_, err := s.Cluster.Patch(s.Context(patience), "ClientMount", s.Node, "one", second)
	s.Must(err)
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	now = s.AwaitStatus("one", func(o lab.Object) bool {
		return fmt.Sprint(o.At("metadata", "finalizers")) == "[example.org/first example.org/last]"
	})
	s.unmounted(m)
	if now.String("metadata", "annotations", "example.org/note") != "kept" || now.String("metadata", "annotations", "example.org/later") != "kept too" {
		s.Errorf("annotations %v", now.At("metadata", "annotations"))
	}
	s.Must(s.Cluster.DropFinalizers(s.Context(patience), "ClientMount", s.Node, "one"))
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.ends()
}

// slowMount: during a long mount the status is published as not ready, so that the rabbit
// can see that the daemon works on it.
func slowMount(s *env) {
	m := s.ready()
	reached, open := s.barrier("mount", lab.Fault{})
	s.Mount("one", m)
	reached()
	s.shows("one", mountstate.Mounting)
	s.sick(mountstate.CauseSlow, mountstate.ActionWait, "running for ", ": mount (pid ")
	s.late("one", mountstate.Mounted, "running for ", ": mount (pid ")
	o := s.AwaitStatus("one", func(o lab.Object) bool { return o.At("status", "mounts", 0, "state") == "mounted" })
	if o.At("status", "mounts", 0, "ready") != false || o.At("status", "allReady") != false || o.Severity() != "" {
		s.Errorf("status %v", o["status"])
	}
	open()
	s.Await("one", "mounted")
	reached, open = s.barrier("umount", lab.Fault{})
	s.Want("one", "unmounted")
	reached()
	s.shows("one", mountstate.Unmounting)
	s.late("one", mountstate.Unmounted, "running for ", ": umount (pid ")
	open()
	s.Await("one", "unmounted")
	s.Delete("one")
	s.ends()
}

// existingTarget: an existing target is used, and is not removed, nor is its parent,
// because the daemon has created neither.
func existingTarget(s *env) {
	m := s.ready()
	s.Must(os.MkdirAll(s.Base, 0o755))
	if s.k.file {
		s.Must(os.WriteFile(m.Path, nil, 0o600))
	} else {
		s.Must(os.Mkdir(m.Path, 0o700))
	}
	s.MountAndWait("one", m)
	s.mounted(m)
	s.Unmount("one")
	s.notMounted(m)
	s.Delete("one")
	if _, err := os.Stat(m.Path); err != nil {
		s.Errorf("an existing target was removed: %v", err)
	}
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// fileInTheWay: a file at the target of the raw device is not changed.
func fileInTheWay(s *env) {
	m := s.ready()
	s.Must(os.MkdirAll(s.Base, 0o755))
	s.Must(os.WriteFile(m.Path, []byte("precious"), 0o600))
	s.Mount("one", m)
	s.failed("one", "Major", "could not create the mount target", m.Path, "contains 8 bytes")
	if data, err := os.ReadFile(m.Path); string(data) != "precious" || err != nil {
		s.Errorf("the file was changed: %q %v", data, err)
	}
	s.Must(os.Remove(m.Path))
	s.Await("one", "mounted") // after the file was moved away
	s.Delete("one")
	s.Must(os.Remove(s.Base))
	s.ends()
}
