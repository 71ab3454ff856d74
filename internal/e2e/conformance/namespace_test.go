package conformance

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var namespaceBehaviours = []behaviour{
	{"mount namespace of its own is refused", xfsOnly, ownNamespace},
	{"mount namespace of its own, where it is allowed", xfsOnly, ownNamespaceAllowed},
	{"mount namespace of process 1", xfsOnly, sameNamespace},
}

// apart runs the daemon as a unit with ProtectSystem= or the like does: in a mount
// namespace of its own, whose mounts nobody else sees.
func (s *scene) apart(flags ...string) lab.Spec {
	return lab.Spec{Wrap: []string{"unshare", "--mount", "--propagation", "slave"}, Args: flags}
}

// ownNamespace: every mount would succeed, and no job would find anything. So it
// never gets ready, and says why.
func ownNamespace(s *scene) {
	d := s.Launch(s.apart("--mount-namespace=host"))
	if code, err := d.Wait(s.Context(patience)); err != nil || code != 1 {
		s.Errorf("it ended with %d (%v), want 1", code, err)
	}
	for _, n := range d.Notices() {
		if _, ok := n.Value("READY"); ok {
			s.Errorf("READY in a mount namespace of its own")
		}
	}
	log := d.Log()
	if len(log) == 0 {
		s.Fatal("it says nothing")
	}
	f := log[len(log)-1].Fields
	text, _ := f["msg"].(string)
	hint, _ := f["hint"].(string)
	if f["level"] != "ERROR" || f["event"] != "mount-namespace" || !strings.Contains(text, "would not see the mounts") ||
		!strings.Contains(hint, "Private…=") || !strings.Contains(hint, "daemon.mount_namespace") {
		s.Errorf("it says %v", f)
	}
	s.noRecords()
}

// ownNamespaceAllowed: a container, say.
func ownNamespaceAllowed(s *scene) {
	s.d = s.StartDaemon(s.apart("--mount-namespace=any"))
	s.stops()
}

// sameNamespace: the laboratory's process 1 is what init is to a host.
func sameNamespace(s *scene) {
	s.with(lab.Spec{Args: []string{"--mount-namespace=host"}})
	s.stops()
}
