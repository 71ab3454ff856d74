package vm

import (
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// writer adds a line to a file, again and again, and keeps it open. What goes
// wrong is in a file of its own.
const writer = `exec 9>>"$1/grows"; echo $$ >/run/writer; while [ ! -e /run/writer-stop ]; do
	date +%s.%N >&9 || echo "a write fails" >>/run/writer-error
	sleep 0.2
done`

// dnf upgrade while a job writes: the mount stays the same one, the job sees
// nothing of it, and what the administrator has edited is kept.
func upgrade(t *testing.T) {
	s := newSite(t, "xfs")
	s.ask(nil)
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
		t.Errorf("the upgrade made mount %s out of mount %s", now, mount)
	}
	s.mounted()
	s.Do("grep -qx '# edited' /etc/clientmountd/config.toml && ! grep -q 'another default' /etc/clientmountd/config.toml && grep -qx '# another default' /etc/clientmountd/config.toml.rpmnew")
	s.Do("n=$(wc -l <" + s.path(0) + "/grows); kill -0 $(cat /run/writer); sleep 1; [ $(wc -l <" + s.path(0) + "/grows) -gt $n ] && [ ! -s /run/writer-error ]")
	s.Do("touch /run/writer-stop")
	s.Machine.Await("the job has ended", "! kill -0 $(cat /run/writer) 2>/dev/null")
	s.release()
	s.unmounted()
}
