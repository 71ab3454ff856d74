package vm

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// A node goes down with two mounts in place. One ClientMount is still there
// afterwards, and is mounted again; the other one has vanished while the daemon
// was away, and nothing of it is left.
func reboot(t *testing.T) {
	kept, vanished := newSite(t, "xfs"), newSite(t, "striped")
	for _, s := range []*site{kept, vanished} {
		s.ask(nil)
	}
	for _, s := range []*site{kept, vanished} {
		s.mounted()
	}
	names := kept.Do("ls /dev/nvme*n*")

	// Somebody takes the finalizer off, as controllers do with a node that is down.
	kept.Do("systemctl stop clientmountd")
	if _, err := kept.Cluster.Patch(kept.Machine.Context(), "ClientMount", vanished.Node, vanished.name, lab.Object{"metadata": map[string]any{"finalizers": nil}}); err != nil {
		t.Fatal(err)
	}
	vanished.remove()
	kept.Do("systemctl start clientmountd")
	vanished.Machine.Await("the journal names the orphan", "journalctl -b -q -o cat -u clientmountd CLIENTMOUNT="+vanished.name+" EVENT=orphan | grep -q .")
	for i := range vanished.volumes { // a job may still use it
		vanished.isMounted(i)
	}

	kept.Reboot()
	if now := kept.Do("ls /dev/nvme*n*"); now != names {
		t.Logf("devices have other names: %q, and before %q", now, names)
	}
	kept.back()
	vanished.nothingLeft()
	if n := kept.Do("ls /run/clientmountd/mounts | wc -l"); n != "1" {
		t.Errorf("there are %s records, and one mount", n)
	}
	if text := vanished.journal(""); text != "" {
		t.Errorf("after the reboot the journal has of the mount that vanished: %s", text)
	}
	if text := kept.Do("journalctl -b -1 -q -o cat -u clientmountd CLIENTMOUNT=" + vanished.name + " EVENT=orphan"); !strings.Contains(text, "no longer exists") {
		t.Errorf("the journal of the boot before says of it %q", text)
	}
	for _, line := range kept.UnitWarnings() {
		t.Error("at boot systemd warns about one of our units: ", line)
	}
	if failed := kept.Do("systemctl --failed --plain --no-legend"); failed != "" {
		t.Errorf("units have failed: %s", failed)
	}
	kept.release()
	kept.unmounted()
}

// The same without a word to the kernel.
func powerCut(t *testing.T) {
	s := newSite(t, "xfs")
	s.ask(nil)
	s.mounted()
	s.PowerCut()
	s.back()
	s.release()
	s.unmounted()
}

// back waits for the mounts that the daemon makes by itself after a boot.
func (s *site) back() {
	s.t.Helper()
	for i := range s.volumes {
		s.Machine.Await("the mount is there again", "findmnt -n "+s.path(i))
		s.isMounted(i)
	}
	s.holds()
	s.mounted()
}
