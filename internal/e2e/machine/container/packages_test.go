package container

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// packaged returns a machine on which dnf finds the packages, in a directory or on a web
// server.
func packaged(t *testing.T, web bool) (*machine.Machine, *machine.Repository) {
	t.Helper()
	m := machine.Container(t)
	return m, m.Repository(web)
}

// transaction runs dnf, which must report no trouble with scriptlets.
func transaction(t *testing.T, m *machine.Machine, script string) {
	t.Helper()
	out := m.Do(script + " 2>&1")
	for line := range strings.SplitSeq(out, "\n") {
		l := strings.ToLower(line)
		if strings.Contains(l, "warning") || strings.Contains(l, "error") || strings.Contains(l, "scriptlet") && !strings.Contains(l, "running scriptlet: ") {
			t.Errorf("%s prints %s", script, line)
		}
	}
}

// install is what the manual tells the administrator to run.
const install = "dnf install -y nnf-dm clientmountd"

// TestPackagesLife runs dnf from the first installation to the removal.
func TestPackagesLife(t *testing.T) {
	m, repository := packaged(t, false)
	transaction(t, m, install)
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
				repository.AddNewer(m)
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
	m.Do("rpm -q gpg-pubkey") // with which dnf has checked the signatures
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

// restarted runs a dnf command that restarts both daemons. Users ask nnf-dm all the while,
// and none is refused.
func restarted(t *testing.T, m *machine.Machine, command string) {
	t.Helper()
	pids := func() string { return m.Property("clientmountd", "MainPID") + " " + m.Property("nnf-dm", "MainPID") }
	before, socket := strings.Fields(pids()), m.Property("nnf-dm.socket", "ActiveEnterTimestampMonotonic")
	// Its own copy of the client: the transaction replaces the installed one.
	m.Do(`install -m 755 /usr/bin/nnf-dmctl /usr/local/bin/ctl; rm -f /root/stop /root/asked
(until [ -e /root/stop ]; do out=$(` + asUser + `/usr/local/bin/ctl version 2>&1) && echo answered || echo "exit code $?: $out"; done; echo end) >/root/asked 2>&1 </dev/null &`)
	transaction(t, m, command)
	m.Await("clientmountd runs again", `p=$(systemctl show --value -p MainPID clientmountd); [ $p != 0 ] && [ $p != `+before[0]+` ] && systemctl is-active clientmountd`)
	m.Await("nnf-dm runs again", `p=$(systemctl show --value -p MainPID nnf-dm); [ $p != 0 ] && [ $p != `+before[1]+` ] && systemctl is-active nnf-dm`)
	m.Do("touch /root/stop")
	everybodyAnswered(t, m)
	if now := m.Property("nnf-dm.socket", "ActiveEnterTimestampMonotonic"); now != socket {
		t.Errorf("the socket was opened at %s, and again at %s", socket, now)
	}
	if got := m.Property("clientmountd", "UnitFileState") + " " + m.Property("nnf-dm.socket", "UnitFileState"); got != "enabled enabled" {
		t.Errorf("the units are %s", got)
	}
}

// stillEdited expects the file that the administrator has changed.
func stillEdited(_ *testing.T, m *machine.Machine) {
	m.Do("grep -qx '# edited' /etc/clientmountd/config.toml")
}

// upgraded expects the file of the next release beside the edited one, and in place of the
// one that was not edited.
func upgraded(t *testing.T, m *machine.Machine) {
	stillEdited(t, m)
	m.Do("! grep -q '# another default' /etc/clientmountd/config.toml && grep -qx '# another default' /etc/clientmountd/config.toml.rpmnew")
	m.Do("grep -qx '# another default' /etc/nnf-dm/config.toml && ! [ -e /etc/nnf-dm/config.toml.rpmnew ]")
	m.Do("[ $(rpm -q --qf '%{VERSION}' clientmountd) = " + machine.NewerVersion + " ]")
}

func removed(t *testing.T, m *machine.Machine) {
	transaction(t, m, machine.DNF+"remove clientmountd nnf-dm")
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

// Images are built where no systemd runs: the installation makes the same links and prints
// nothing.
func TestPackagesInChroot(t *testing.T) {
	m, repository := packaged(t, false)
	// The bind mount has no mounts below it: no /run/systemd and no /proc. Without
	// --force-debian, the rpm of this distribution warns that it is not the first choice.
	m.Do("mkdir /mnt/image && mount --bind / /mnt/image && [ ! -e /mnt/image/run/systemd/system ]")
	m.Do("cp -r " + repository.Dir + " /root/repo && chroot /mnt/image rpm --import /root/repo/RPM-GPG-KEY-compute-daemons")
	if out := m.Do("chroot /mnt/image rpm -i --nodeps --force-debian /root/repo/clientmountd-*.rpm /root/repo/nnf-dm-*.rpm 2>&1"); out != "" {
		t.Errorf("it prints %s", out)
	}
	m.Do("[ -L /etc/systemd/system/multi-user.target.wants/clientmountd.service ] && [ -L /etc/systemd/system/sockets.target.wants/nnf-dm.socket ]")
	m.Do("chroot /mnt/image id nnf-dm && umount /mnt/image")
}
