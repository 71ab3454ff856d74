package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

var namespaceBehaviours = []behaviour{
	{"mount namespace of its own is refused", xfsOnly, ownNamespace},
	{"mount namespace of its own, where it is allowed", xfsOnly, ownNamespaceAllowed},
	{"mount namespace of process 1", xfsOnly, sameNamespace},
}

// apart runs the daemon as a unit with ProtectSystem= or the like does: in a mount
// namespace of its own, whose mounts nobody else sees.
func (s *scene) apart(flags ...string) lab.DaemonOptions {
	s.Helper()
	unshare, err := exec.LookPath("unshare")
	s.must(err)
	daemon := os.Getenv("CLIENTMOUNTD")
	if daemon == "" {
		daemon = filepath.Join(stage.Root(s.t), "bin", "clientmountd")
	}
	args := append([]string{"--mount", "--propagation", "slave", daemon}, s.Flags("", "")...)
	return lab.DaemonOptions{Binary: unshare, Args: append(args, flags...)}
}

// ownNamespace: every mount would succeed, and no job would find anything. So it
// never gets ready, and says why.
func ownNamespace(s *scene) {
	d, err := s.StartDaemon(s.apart("--mount-namespace=host"))
	s.must(err)
	s.Cleanup(d.Kill9)
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
	d, err := s.StartDaemon(s.apart("--mount-namespace=any"))
	s.must(err)
	s.d = d
	s.Cleanup(d.Kill9)
	if _, err := d.WaitReady(s.Context(patience)); err != nil {
		s.Fatal("it does not become ready: ", err)
	}
	s.stops()
}

// sameNamespace: the laboratory's process 1 is what init is to a host.
func sameNamespace(s *scene) {
	s.with(lab.DaemonOptions{Args: append(s.Flags("", ""), "--mount-namespace=host")})
	s.stops()
}
