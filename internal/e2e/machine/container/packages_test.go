package container

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// packaged returns a machine on which dnf finds the packages, in a directory or on a web
// server.
func packaged(t *testing.T, web bool) (*machine.Machine, *machine.Repository) {
	t.Helper()
	m := machine.Container(t)
	return m, m.Repository(web)
}

// transaction runs dnf, which must not print warnings, errors or output of scriptlets.
func transaction(t *testing.T, m *machine.Machine, script string) {
	t.Helper()
	out := m.Do("exec 2>&1; set -e\n" + script)
	for line := range strings.SplitSeq(out, "\n") {
		l := strings.ToLower(line)
		if strings.Contains(l, "warning") || strings.Contains(l, "error") || strings.Contains(l, "scriptlet") && !strings.Contains(l, "running scriptlet: ") {
			t.Errorf("%s prints %s", script, line)
		}
	}
}

// withoutQuestions returns blocks of commands in which dnf asks no questions. Their number must be
// count.
func withoutQuestions(t *testing.T, count int, blocks []string) []string {
	t.Helper()
	if len(blocks) != count {
		t.Fatalf("the guide has %d blocks of commands for this test, want %d: %q", len(blocks), count, blocks)
	}
	for i := range blocks {
		blocks[i] = strings.ReplaceAll(blocks[i], "dnf ", "dnf -y ")
	}
	return blocks
}

// TestPackages runs dnf from the first installation to the removal, with the commands of
// install.md.
func TestPackages(t *testing.T) {
	blocks := withoutQuestions(t, 3, manual.Commands(t, fixture.Root(t), "docs/install.md", "internal/e2e/machine/container TestPackages"))
	install, upgrade, remove := blocks[0], blocks[1], blocks[2]
	m, repository := packaged(t, true)
	m.Do("rm /etc/yum.repos.d/compute-daemons.repo")
	transaction(t, m, strings.Replace(install, "https://www.example.com/compute-daemons", repository.URL, 1))
	t.Run("installed", func(t *testing.T) { justInstalled(t, m.For(t)) })

	m.Configure()
	m.Do("systemctl start clientmountd nnf-dm.socket && " + asUser + "nnf-dmctl version")
	m.Do("echo '# edited' >>/etc/clientmountd/config.toml")
	m.Do("mkdir -p /mnt/nnf/mounted && mount -t tmpfs jobs /mnt/nnf/mounted && echo data >/mnt/nnf/mounted/file")
	for _, step := range []struct {
		name, command string
		check         func(*testing.T, *machine.Machine)
	}{
		{"again", "dnf -y reinstall clientmountd nnf-dm", stillEdited},
		{"upgraded", upgrade, upgraded},
		{"downgraded", "dnf -y downgrade clientmountd nnf-dm", stillEdited},
	} {
		t.Run(step.name, func(t *testing.T) {
			m := m.For(t)
			if step.command == upgrade {
				repository.AddNewer(m)
			}
			restarted(t, m, strings.Replace(step.command, "dnf -y ", machine.DNF+"--refresh ", 1))
			step.check(t, m)
		})
	}
	checkJournal(t, m) // before the catalogue is removed
	t.Run("removed", func(t *testing.T) { removed(t, m.For(t), remove) })
	m.Do("[ $(cat /mnt/nnf/mounted/file) = data ] && umount /mnt/nnf/mounted")
}

func justInstalled(t *testing.T, m *machine.Machine) {
	m.Do("rpm -V clientmountd nnf-dm distribution")
	m.Do("rpm -q gpg-pubkey") // the key with which dnf has checked the signatures
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
		t.Error("systemd has not loaded the units")
	}
	unitsAreSound(t, m)
}

// restarted runs a dnf command that restarts both daemons. Meanwhile users call nnf-dm
// continuously, and all calls succeed.
func restarted(t *testing.T, m *machine.Machine, command string) {
	t.Helper()
	pids := func() string { return m.Property("clientmountd", "MainPID") + " " + m.Property("nnf-dm", "MainPID") }
	before, socket := strings.Fields(pids()), m.Property("nnf-dm.socket", "ActiveEnterTimestampMonotonic")
	// A copy of the client, because the transaction replaces the installed one.
	m.Do(`install -m 755 /usr/bin/nnf-dmctl /usr/local/bin/ctl; rm -f /root/stop /root/asked
(until [ -e /root/stop ]; do out=$(` + asUser + `/usr/local/bin/ctl version 2>&1) && echo answered || echo "exit code $?: $out"; done; echo end) >/root/asked 2>&1 </dev/null &`)
	transaction(t, m, command)
	m.Await("clientmountd runs again", `p=$(systemctl show --value -p MainPID clientmountd); [ $p != 0 ] && [ $p != `+before[0]+` ] && systemctl is-active clientmountd`)
	m.Await("nnf-dm runs again", `p=$(systemctl show --value -p MainPID nnf-dm); [ $p != 0 ] && [ $p != `+before[1]+` ] && systemctl is-active nnf-dm`)
	m.Do("touch /root/stop")
	allAnswered(t, m)
	if now := m.Property("nnf-dm.socket", "ActiveEnterTimestampMonotonic"); now != socket {
		t.Errorf("the socket was opened at %s, and again at %s", socket, now)
	}
	if got := m.Property("clientmountd", "UnitFileState") + " " + m.Property("nnf-dm.socket", "UnitFileState"); got != "enabled enabled" {
		t.Errorf("the units are %s", got)
	}
}

// stillEdited checks that the edited configuration file is kept.
func stillEdited(_ *testing.T, m *machine.Machine) {
	m.Do("grep -qx '# edited' /etc/clientmountd/config.toml")
}

// upgraded checks that the new configuration file is installed beside the edited one, and replaces
// the unedited one.
func upgraded(t *testing.T, m *machine.Machine) {
	stillEdited(t, m)
	m.Do("! grep -q '# another default' /etc/clientmountd/config.toml && grep -qx '# another default' /etc/clientmountd/config.toml.rpmnew")
	m.Do("grep -qx '# another default' /etc/nnf-dm/config.toml && ! [ -e /etc/nnf-dm/config.toml.rpmnew ]")
	m.Do("[ $(rpm -q --qf '%{VERSION}' clientmountd) = " + machine.NewerVersion + " ]")
}

func removed(t *testing.T, m *machine.Machine, remove string) {
	transaction(t, m, strings.Replace(remove, "dnf -y ", machine.DNF, 1))
	for _, unit := range []string{"clientmountd.service", "nnf-dm.socket", "nnf-dm.service"} {
		if got := m.Property(unit, "ActiveState") + " " + m.Property(unit, "LoadState"); got != "inactive not-found" {
			t.Errorf("%s is %s", unit, got)
		}
	}
	m.Do("! pgrep -x 'clientmountd|nnf-dm'; ! [ -e /run/nnf-dm.sock ]")
	// Only files of the administrator remain.
	left := m.Do(`find / -xdev \( -name '*clientmount*' -o -name '*nnf-dm*' \) -not -path '/proc/*' -not -path '/root/*' -not -path '/var/log/*' | sort`)
	if left != "/etc/clientmountd\n/etc/nnf-dm" {
		t.Errorf("left behind: %s", left)
	}
	if files := m.Do("cd /etc/clientmountd && find . -type f | sort | tr '\\n' ' '"); files != "./config.d/10-cluster.toml ./config.toml.rpmnew ./config.toml.rpmsave ./service.cert ./service.token " {
		t.Errorf("the files in /etc/clientmountd are %s", files)
	}
}

// When an image is built without a running systemd, the installation creates the same links and
// prints nothing.
func TestPackagesInChroot(t *testing.T) {
	m, repository := packaged(t, false)
	// The bind mount has no mounts below it: no /run/systemd and no /proc. Without
	// --force-debian, the rpm of this distribution warns that it is not the first choice.
	m.Do("mkdir /mnt/image && mount --bind / /mnt/image && [ ! -e /mnt/image/run/systemd/system ]")
	m.Do("cp -r " + repository.Dir + " /root/repo && chroot /mnt/image rpm --import /root/repo/RPM-GPG-KEY-compute-daemons")
	if out := m.Do("chroot /mnt/image rpm -i --nodeps --force-debian /root/repo/clientmountd-*.rpm /root/repo/nnf-dm-*.rpm 2>&1"); out != "" {
		t.Errorf("it prints %s", out)
	}
	installed := func() {
		m.Do("[ -L /etc/systemd/system/multi-user.target.wants/clientmountd.service ] && [ -L /etc/systemd/system/sockets.target.wants/nnf-dm.socket ]")
		m.Do("chroot /mnt/image id nnf-dm")
	}
	installed()

	m.Do("chroot /mnt/image rpm -e clientmountd nnf-dm && mv /etc/yum.repos.d/compute-daemons.repo /mnt && echo >/mnt/clientmountd.toml && echo >/mnt/nnf-dm.toml")
	block := withoutQuestions(t, 1, manual.Commands(t, fixture.Root(t), "docs/install.md", "internal/e2e/machine/container TestPackagesInChroot"))[0]
	transaction(t, m, "cd /mnt\n"+strings.ReplaceAll(block, "IMAGE", "image"))
	installed()
	if got := m.Do("stat -c '%a %U:%G' /etc/clientmountd/config.d/site.toml /etc/nnf-dm/config.d/site.toml"); got != "600 root:root\n640 root:nnf-dm" {
		t.Error(got)
	}
	m.Do("umount /mnt/image")
}
