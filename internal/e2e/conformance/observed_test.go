package conformance

import (
	"net/http"
	"os"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// The daemon reports what the mount table shows and what is recorded.
var observedBehaviours = []behaviour{
	{"Lustre server by host name", lustreOnly, hostName},
	{"unmounted from the start", nil, neverMounted},
	{"status rejected as invalid", xfsOrLustre, refusedStatus(http.StatusUnprocessableEntity, false)},
	{"status forbidden, daemon killed", xfsOnly, refusedStatus(http.StatusForbidden, true)},
}

func xfsOrLustre(k *kind) bool { return k.name == "xfs" || k.name == "lustre" }

// hostName: the object has the host name of the management server, and the kernel shows
// an address. The mount of our own command is ours.
func hostName(s *env) {
	m := s.ready()
	m.MGS = "mgs.example.org@tcp"
	asked, shown := m.MGS+":/"+m.FSName, mgs+":/"+m.FSName
	s.Must(s.ShowSource(asked, shown))
	s.Cleanup(func() { _ = s.ShowSource(asked, "") })
	s.Mount("one", m)
	if o := s.Await("one", "mounted"); o.Severity() != "" {
		s.Errorf("status %v", o["status"])
	}
	s.mounted(m) // checks for the address
	if list := s.ran("mount "); len(list) != 1 || !strings.HasSuffix(list[0], " "+asked+" "+m.Path) {
		s.Errorf("called %q", list)
	}
	s.Must(s.ClearLog())
	s.again("one")
	s.never("mount", "umount")
	if o := s.get("one"); !o.Ready("mounted") || o.Severity() != "" {
		s.Errorf("after a restart: status %v", o["status"])
	}
	s.Unmount("one")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// neverMounted: an object whose desired state was always unmounted removes nothing at its
// path.
func neverMounted(s *env) {
	m := s.ready()
	s.Must(os.MkdirAll(s.Base, 0o755))
	dir, file := m, m
	dir.Path, file.Path = s.Path("directory"), s.Path("file")
	s.Must(os.Mkdir(dir.Path, 0o755))
	s.Must(os.WriteFile(file.Path, nil, 0o644))
	there := func(when string) {
		s.Helper()
		for _, path := range []string{dir.Path, file.Path} {
			if _, err := os.Lstat(path); err != nil {
				s.Errorf("after the %s: %v", when, err)
			}
		}
	}
	for name, m := range map[string]fixture.MountSpec{"directory": dir, "file": file} {
		s.Apply(fixture.ClientMount(name, s.Node, fixture.ClientMountSpec{State: "unmounted", Profile: s.Profile, OwnerUID: s.Owner, Mounts: []fixture.MountSpec{m}}))
		s.Await(name, "unmounted")
		there("unmount")
		s.Delete(name)
		there("deletion")
	}
	s.never("mount", "umount")
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// refusedStatus: the server rejects the status for a while. Completed steps are not
// repeated, and the status is published when the server accepts it.
func refusedStatus(code int, killed bool) func(*env) {
	return func(s *env) {
		s.UseProfile(s.hookProfile())
		m := s.storage(3, lab.VolumeOptions{})
		proxy := s.UseProxy()
		s.run()
		refuse := func() {
			s.Helper()
			s.Must(s.ClearLog())
			proxy.ClearRequests()
			proxy.Set(lab.Rule{Class: lab.ClassPatchStatus, Code: code})
		}
		// refused waits for that many rejected writes.
		refused := func(n int) {
			s.Helper()
			seen := map[*lab.Request]bool{}
			_, err := proxy.WaitRequest(s.Context(patience), func(r *lab.Request) bool {
				if r.Class == lab.ClassPatchStatus {
					seen[r] = true
				}
				return len(seen) == n
			})
			s.Must(err)
		}
		once := func(verb string, lists []string) {
			s.Helper()
			if list := s.ran(verb); len(list) != 1 {
				s.Errorf("called %q, want one %s", list, strings.TrimSpace(verb))
			}
			for _, list := range lists {
				if n := len(s.ran("dlm_tool " + list + " again")); n != 1 {
					s.Errorf("the %s hooks ran %d times", list, n)
				}
			}
		}
		restart := func() {
			s.Helper()
			if killed {
				s.d.Kill9()
				proxy.ClearRequests()
				s.run()
				refused(1)
			}
		}
		for _, turn := range []struct {
			state, verb string
			lists       []string
			check       func(fixture.MountSpec)
		}{
			{"mounted", "mount ", s.k.up, s.mounted},
			{"unmounted", "umount ", s.k.down, s.unmounted},
		} {
			refuse()
			if turn.state == "mounted" {
				s.Mount("one", m)
			} else {
				s.Want("one", turn.state)
			}
			refused(2)
			restart()
			turn.check(m)
			proxy.Clear()
			if o := s.Await("one", turn.state); o.Severity() != "" || o.At("status", "allReady") != true {
				s.Errorf("status %v", o["status"])
			}
			once(turn.verb, turn.lists)
		}
		s.Delete("one")
		once("umount ", s.k.down) // and not again for the deletion
		s.ends()
	}
}
