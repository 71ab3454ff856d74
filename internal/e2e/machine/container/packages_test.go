package container

import (
	"os"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// packaged is a machine on which dnf finds the packages.
func packaged(t *testing.T) *machine.Machine {
	t.Helper()
	m := machine.Container(t)
	if len(machine.Packages(t)) == 0 {
		const why = "there are no packages in bin/rpm: run make rpm"
		if os.Getenv(world.RequireVar) != "" {
			t.Fatal(why)
		}
		t.Skip("not run: " + why)
	}
	m.Repository()
	return m
}

// quiet runs a transaction that must say nothing of its scriptlets.
func quiet(t *testing.T, m *machine.Machine, script string) {
	t.Helper()
	out := m.Do(script + " 2>&1")
	for line := range strings.SplitSeq(out, "\n") {
		if l := strings.ToLower(line); strings.Contains(l, "scriptlet") || strings.Contains(l, "warning") || strings.Contains(l, "error") {
			t.Errorf("%s: it says %s", script, line)
		}
	}
}

// TestPackagesLife is what dnf does with the packages, from the first
// installation to the removal.
func TestPackagesLife(t *testing.T) {
	m := packaged(t)
	quiet(t, m, machine.DNF+"install clientmountd nnf-dm")
	t.Run("installed", func(t *testing.T) { justInstalled(t, m.For(t)) })

	m.Configure()
	m.Do("systemctl start clientmountd nnf-dm.socket && " + asUser + "nnf-dmctl version")
	m.Do("echo '# edited' >>/etc/clientmountd/config.toml")
	m.Do("mkdir -p /mnt/nnf/mounted && mount -t tmpfs jobs /mnt/nnf/mounted && echo data >/mnt/nnf/mounted/file")
	for _, step := range []struct {
		name, command string
		show          func(*testing.T, *machine.Machine)
	}{
		{"again", "reinstall", stillEdited},
		{"upgraded", "upgrade", upgraded},
		{"downgraded", "downgrade", stillEdited},
	} {
		t.Run(step.name, func(t *testing.T) {
			m := m.For(t)
			if step.command == "upgrade" {
				m.NewerRepository()
			}
			restarted(t, m, machine.DNF+"--refresh "+step.command+" clientmountd nnf-dm")
			step.show(t, m)
		})
	}
	look(t, m) // while the catalogue is there
	t.Run("removed", func(t *testing.T) { removed(t, m.For(t)) })
	m.Do("[ $(cat /mnt/nnf/mounted/file) = data ] && umount /mnt/nnf/mounted")
}

func justInstalled(t *testing.T, m *machine.Machine) {
	m.Do("rpm -V clientmountd nnf-dm distribution")
	m.Do("id nnf-dm")
	if got := m.Do("stat -c '%n %a %U:%G' /etc/clientmountd /etc/nnf-dm /etc/nnf-dm/config.toml /usr/bin/clientmountd"); got !=
		"/etc/clientmountd 700 root:root\n/etc/nnf-dm 750 root:nnf-dm\n/etc/nnf-dm/config.toml 640 root:nnf-dm\n/usr/bin/clientmountd 755 root:root" {
		t.Error(got)
	}
	for unit, want := range map[string]string{"clientmountd.service": "enabled inactive", "nnf-dm.socket": "enabled inactive", "nnf-dm.service": "indirect inactive"} {
		if got := m.Property(unit, "UnitFileState") + " " + m.Property(unit, "ActiveState"); got != want {
			t.Errorf("%s is %s, want %s", unit, got, want)
		}
	}
	if got := m.Do("rpm -q --whatprovides nnf-clientmount --qf '%{NAME}'"); got != "clientmountd" {
		t.Errorf("nnf-clientmount is provided by %s", got)
	}
	has(t, m.Do("rpm -qc clientmountd nnf-dm"), "/etc/clientmountd/config.toml", "/etc/nnf-dm/config.toml")
	if m.Property("clientmountd", "NeedDaemonReload") != "no" {
		t.Error("systemd has not been told of the units")
	}
	unitsAreSound(t, m)
}

// restarted runs a transaction after which both daemons run anew. Users ask
// nnf-dm all the while, and nobody is refused.
func restarted(t *testing.T, m *machine.Machine, transaction string) {
	t.Helper()
	pids := func() string { return m.Property("clientmountd", "MainPID") + " " + m.Property("nnf-dm", "MainPID") }
	before, socket := strings.Fields(pids()), m.Property("nnf-dm.socket", "ActiveEnterTimestampMonotonic")
	// Its own copy of the client: the transaction replaces the installed one.
	m.Do(`install -m 755 /usr/bin/nnf-dmctl /usr/local/bin/ctl; rm -f /root/stop /root/asked
(until [ -e /root/stop ]; do out=$(` + asUser + `/usr/local/bin/ctl version 2>&1) && echo answered || echo "exit code $?: $out"; done; echo end) >/root/asked 2>&1 </dev/null &`)
	quiet(t, m, transaction)
	m.Await("clientmountd runs anew", `p=$(systemctl show --value -p MainPID clientmountd); [ $p != 0 ] && [ $p != `+before[0]+` ] && systemctl is-active clientmountd`)
	m.Await("nnf-dm runs anew", `p=$(systemctl show --value -p MainPID nnf-dm); [ $p != 0 ] && [ $p != `+before[1]+` ] && systemctl is-active nnf-dm`)
	m.Do("touch /root/stop")
	everybodyAnswered(t, m)
	if now := m.Property("nnf-dm.socket", "ActiveEnterTimestampMonotonic"); now != socket {
		t.Errorf("the socket was opened at %s, and again at %s", socket, now)
	}
	if got := m.Property("clientmountd", "UnitFileState") + " " + m.Property("nnf-dm.socket", "UnitFileState"); got != "enabled enabled" {
		t.Errorf("the units are %s", got)
	}
}

// stillEdited is true of the file that the administrator has changed.
func stillEdited(_ *testing.T, m *machine.Machine) {
	m.Do("grep -qx '# edited' /etc/clientmountd/config.toml")
}

// upgraded has the next release's file beside the edited one, and in place of
// the one that nobody has edited.
func upgraded(t *testing.T, m *machine.Machine) {
	stillEdited(t, m)
	m.Do("! grep -q '# another default' /etc/clientmountd/config.toml && grep -qx '# another default' /etc/clientmountd/config.toml.rpmnew")
	m.Do("grep -qx '# another default' /etc/nnf-dm/config.toml && ! [ -e /etc/nnf-dm/config.toml.rpmnew ]")
	m.Do("[ $(rpm -q --qf '%{VERSION}' clientmountd) = 9999 ]")
}

func removed(t *testing.T, m *machine.Machine) {
	quiet(t, m, machine.DNF+"remove clientmountd nnf-dm")
	for _, unit := range []string{"clientmountd.service", "nnf-dm.socket", "nnf-dm.service"} {
		if got := m.Property(unit, "ActiveState") + " " + m.Property(unit, "LoadState"); got != "inactive not-found" {
			t.Errorf("%s is %s", unit, got)
		}
	}
	m.Do("! pgrep -x 'clientmountd|nnf-dm'; ! [ -e /run/nnf-dm.sock ]")
	// What stays is the administrator's.
	left := m.Do(`find / -xdev \( -name '*clientmount*' -o -name '*nnf-dm*' \) -not -path '/proc/*' -not -path '/root/*' -not -path '/var/log/*' | sort`)
	if left != "/etc/clientmountd\n/etc/nnf-dm" {
		t.Errorf("left behind: %s", left)
	}
	if files := m.Do("cd /etc/clientmountd && find . -type f | sort | tr '\\n' ' '"); files != "./config.d/10-cluster.toml ./config.toml.rpmnew ./config.toml.rpmsave ./service.cert ./service.token " {
		t.Errorf("in /etc/clientmountd there is %s", files)
	}
}

// Images are built where no systemd runs: the same links, and not a word.
func TestPackagesInChroot(t *testing.T) {
	m := packaged(t)
	// Without the mounts below it: there is no /run/systemd in it, and no /proc. The
	// rpm of this distribution would warn that it is not the first choice here.
	m.Do("mkdir /mnt/image && mount --bind / /mnt/image && [ ! -e /mnt/image/run/systemd/system ]")
	if out := m.Do("chroot /mnt/image rpm -i --nodeps --force-debian /root/repo/clientmountd-*.rpm /root/repo/nnf-dm-*.rpm 2>&1"); out != "" {
		t.Errorf("it says %s", out)
	}
	m.Do("[ -L /etc/systemd/system/multi-user.target.wants/clientmountd.service ] && [ -L /etc/systemd/system/sockets.target.wants/nnf-dm.socket ]")
	m.Do("chroot /mnt/image id nnf-dm && umount /mnt/image")
}
