package vm

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// A node reboots with two mounts in place. One ClientMount still exists after the reboot, and is
// mounted again; the other was deleted while the daemon was stopped, and nothing of it is left.
func reboot(t *testing.T) {
	kept, vanished := newSite(t, "xfs"), newSite(t, "striped")
	for _, s := range []*site{kept, vanished} {
		s.requestMounts(nil)
	}
	for _, s := range []*site{kept, vanished} {
		s.mounted()
	}
	names := kept.Do("ls /dev/nvme*n*")

	// Remove the finalizer, as controllers do for a node that is down.
	kept.Do("systemctl stop clientmountd")
	if err := kept.Cluster.DropFinalizers(kept.Machine.Context(), "ClientMount", vanished.Node, vanished.name); err != nil {
		t.Fatal(err)
	}
	vanished.remove()
	kept.Do("systemctl start clientmountd")
	vanished.Machine.Await("the journal has the orphan", "journalctl -b -q -o cat -u clientmountd CLIENTMOUNT="+vanished.name+" EVENT=orphan | grep -q .")
	for i := range vanished.volumes { // a job may still use it
		vanished.isMounted(i)
	}

	kept.Reboot()
	if now := kept.Do("ls /dev/nvme*n*"); now != names {
		t.Logf("the names of devices have changed: %q, before %q", now, names)
	}
	kept.back()
	vanished.nothingLeft()
	if n := kept.Do("ls /run/clientmountd/mounts | wc -l"); n != "1" {
		t.Errorf("%s records for one mount", n)
	}
	if text := vanished.journal(""); text != "" {
		t.Errorf("after the reboot, the journal has records of the deleted ClientMount: %s", text)
	}
	if text := kept.Do("journalctl -b -1 -q -o cat -u clientmountd CLIENTMOUNT=" + vanished.name + " EVENT=orphan"); !strings.Contains(text, "no longer exists") {
		t.Errorf("the journal of the previous boot has %q", text)
	}
	for _, line := range kept.UnitWarnings() {
		t.Error("systemd warns at boot about one of our units: ", line)
	}
	if failed := kept.Do("systemctl --failed --plain --no-legend"); failed != "" {
		t.Errorf("units have failed: %s", failed)
	}
	kept.release()
	kept.unmounted()
}

// A reset without a shutdown.
func powerCut(t *testing.T) {
	s := newSite(t, "xfs")
	s.requestMounts(nil)
	s.mounted()
	s.PowerCut()
	s.back()
	s.release()
	s.unmounted()
}

// back waits until the daemon has mounted the volumes after a boot.
func (s *site) back() {
	s.t.Helper()
	for i := range s.volumes {
		s.Machine.Await("the volume is mounted again", "findmnt -n "+s.path(i))
		s.isMounted(i)
	}
	s.holds()
	s.mounted()
}

// writer is a script that repeatedly appends a line to a file that it keeps open. It writes
// errors to a separate file.
const writer = `exec 9>>"$1/grows"; echo $$ >/run/writer; while [ ! -e /run/writer-stop ]; do
	date +%s.%N >&9 || echo "a write fails" >>/run/writer-error
	sleep 0.2
done`

// dnf upgrade while a job writes: the mount is not replaced, the job is not disturbed, and the
// edited configuration file is kept.
func upgrade(t *testing.T) {
	s := newSite(t, "xfs")
	s.requestMounts(nil)
	s.mounted()
	s.Put("/run/writer.sh", 0o644, []byte(writer))
	s.Do("setsid bash /run/writer.sh " + s.path(0) + " >/run/writer-error 2>&1 </dev/null & echo '# edited' >>/etc/clientmountd/config.toml")
	s.Machine.Await("the job writes", "[ -s "+s.path(0)+"/grows ]")
	mount := s.Do("findmnt -n -o ID " + s.path(0))
	pid := s.Property("clientmountd", "MainPID")
	old := s.Do("clientmountd version")

	s.Use(machine.NewerRepository)
	s.Do(machine.DNF + "upgrade clientmountd")

	s.Machine.Await("another daemon runs", `p=$(systemctl show --value -p MainPID clientmountd); [ $p != 0 ] && [ $p != `+pid+` ] && systemctl -q is-active clientmountd`)
	if got, want := s.Do("clientmountd version"), "Version v"+machine.NewerVersion; got != want || got == old {
		t.Errorf("after the upgrade it is %q, before it was %q", got, old)
	}
	s.Do(`[ "$(readlink /proc/$(systemctl show --value -p MainPID clientmountd)/exe)" = /usr/bin/clientmountd ]`)
	s.Do("journalctl -b -q -o cat -u clientmountd EVENT=started VERSION=v" + machine.NewerVersion + " | grep -q .")
	if now := s.Do("findmnt -n -o ID " + s.path(0)); now != mount {
		t.Errorf("after the upgrade, mount %s has replaced mount %s", now, mount)
	}
	s.mounted()
	s.Do("grep -qx '# edited' /etc/clientmountd/config.toml && ! grep -q 'another default' /etc/clientmountd/config.toml && grep -qx '# another default' /etc/clientmountd/config.toml.rpmnew")
	s.Do("n=$(wc -l <" + s.path(0) + "/grows); kill -0 $(cat /run/writer); sleep 1; [ $(wc -l <" + s.path(0) + "/grows) -gt $n ] && [ ! -s /run/writer-error ]")
	s.Do("touch /run/writer-stop")
	s.Machine.Await("the job has ended", "! kill -0 $(cat /run/writer) 2>/dev/null")
	s.release()
	s.unmounted()
}

// A volume without a file system causes one record with its explanation, whatever the number of
// retries. When a file system is created, the mount succeeds.
func failed(t *testing.T) {
	s := newSite(t, "empty")
	s.requestMounts(nil)
	o := s.Fixture.AwaitError(s.name)
	if text := o.DebugMessage(); !strings.Contains(text, "unable to mount file system") {
		t.Errorf("the status has %q", text)
	}
	// One attempt causes several messages.
	s.Machine.Await("the daemon retries", `n=$(dmesg | grep -c 'Invalid superblock magic number'); [ -e /run/tries ] || echo $n >/run/tries; [ $n -gt $((3 * $(cat /run/tries))) ]`)
	if records := s.journal("EVENT=failed"); strings.Count(records, "\n") != 0 || records == "" {
		t.Errorf("the journal should have one record of the failure: %s", records)
	}
	text := s.journal("-x -o short")
	for _, part := range []string{
		"ClientMount failed", "Subject: ClientMount empty failed", "Documentation: man:clientmountd(8)",
		"For the job: The job of workflow job7 waits.", "What to do: ",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("journalctl -x has no %q in\n%s", part, text)
		}
	}
	if hint := s.Do("journalctl -b -q -o json -u clientmountd CLIENTMOUNT=empty EVENT=failed | jq -r .HINT"); len(hint) < 10 {
		t.Errorf("the record's hint is %q", hint)
	}
	s.Do(mkfsXFS + " " + s.mapped(0))
	s.mounted()
	s.release()
	s.unmounted()
	s.noTargets()
}

// The daemon is killed during a mount, and the next one completes it.
func killed(t *testing.T) {
	s := newSite(t, "xfs")
	s.requestMounts(fixture.Hooks{"preMount": {"echo $$ >>/run/hook; sleep 5"}})
	s.Machine.Await("the hook runs", "[ -s /run/hook ]")
	s.Do("kill -KILL $(systemctl show --value -p MainPID clientmountd)")
	s.mounted()
	if n := s.Do("findmnt -n -l -o TARGET | grep -c '^" + s.path(0) + "$'"); n != "1" {
		t.Errorf("mounted %s times", n)
	}
	s.release()
	s.unmounted()
	s.noTargets()
}
