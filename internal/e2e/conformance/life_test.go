package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var lifeBehaviours = []behaviour{
	{"full life", nil, fullLife},
	{"back and forth", nil, backAndForth},
	{"deletion while mounted", nil, deletedWhileMounted},
	{"restart changes nothing", nil, restart},
	{"older API version", nil, olderVersion},
	{"what others wrote survives", nil, othersSurvive},
	{"slow mount says so", xfsOnly, slowMount},
	{"existing target", nil, existingTarget},
	{"raw target in the way", rawOnly, fileInTheWay},
}

// fullLife is everything that happens to a ClientMount on a good day: each
// state that others can see, each program that is called, each write.
func fullLife(s *env) {
	s.UseProfile(world.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	proxy := s.UseProxy()
	s.run()
	states := s.follow("one")
	s.MountAndWait("one", m)
	s.mounted(m)
	s.owned(m)
	f := s.logged("mounted file system", "one")
	for field, want := range map[string]any{"workflow": "job7", "mount_path": m.Path, "type": s.k.typ} {
		if f[field] != want {
			s.Errorf("the log says %s=%v, want %v", field, f[field], want)
		}
	}
	s.called(s.words(s.k.mount, m)...)
	s.Unmount("one")
	s.unmounted(m)
	s.called(s.words(s.k.unmount, m)...)
	s.Delete("one")
	s.called()
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
		s.Errorf("%d whole-object updates, which drop what newer versions wrote", n)
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
	// Changes of the desired state while the daemon still works on an earlier one: the
	// last one counts. The status can be that of the first, which wanted the same.
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

// restart: the daemon comes and goes, mounts stay. It looks at what is there,
// mounts nothing twice and writes nothing that is known already.
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

// olderVersion: an object that a rabbit of the last release makes.
func olderVersion(s *env) {
	m := s.ready()
	o := world.ClientMount("one", s.Node, world.ClientMountSpec{Profile: s.Profile, OwnerUID: s.Owner, Mounts: []world.MountSpec{m}})
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

// othersSurvive: what others put on the object, before and in between, stays,
// and their finalizers hold it when ours is off.
func othersSurvive(s *env) {
	m := s.ready()
	o := world.ClientMount("one", s.Node, world.ClientMountSpec{Profile: s.Profile, OwnerUID: s.Owner, Mounts: []world.MountSpec{m}})
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

// slowMount: a mount that takes long is published as not ready in between, so
// that the rabbit sees that the daemon works on it.
func slowMount(s *env) {
	m := s.ready()
	reached, open := s.gate("mount", lab.Fault{})
	s.Mount("one", m)
	reached()
	o := s.AwaitStatus("one", func(o lab.Object) bool { return o.At("status", "mounts", 0, "state") == "mounted" })
	if o.At("status", "mounts", 0, "ready") != false || o.At("status", "allReady") != false || o.Severity() != "" {
		s.Errorf("status %v", o["status"])
	}
	open()
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// existingTarget: a target that was there before is used, and stays with its
// parent: neither was made by the daemon.
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
		s.Errorf("a target that was there before is gone: %v", err)
	}
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// fileInTheWay: whatever lies where the raw device should appear keeps its
// content.
func fileInTheWay(s *env) {
	m := s.ready()
	s.Must(os.MkdirAll(s.Base, 0o755))
	s.Must(os.WriteFile(m.Path, []byte("precious"), 0o600))
	s.Mount("one", m)
	s.failed("one", "Major", "could not make the mount target", m.Path, "holds 8 bytes")
	if data, err := os.ReadFile(m.Path); string(data) != "precious" || err != nil {
		s.Errorf("the file was touched: %q %v", data, err)
	}
	s.Must(os.Remove(m.Path))
	s.Await("one", "mounted") // by itself, once the file is out of the way
	s.Delete("one")
	s.Must(os.Remove(s.Base))
	s.ends()
}
