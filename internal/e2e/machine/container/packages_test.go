package container

import (
	"os"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// packaged is a machine on which dnf finds the packages.
func packaged(t *testing.T) *machine.Machine {
	t.Helper()
	m := machine.Container(t)
	if len(machine.Packages(t)) == 0 {
		const why = "there are no packages in bin/rpm: run make rpm"
		if os.Getenv(stage.RequireVar) != "" {
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

func TestPackagesLife(t *testing.T) {
	m := packaged(t)
	quiet(t, m, machine.DNF+"install clientmountd nnf-dm")

	t.Run("installed", func(t *testing.T) {
		m := m.For(t)
		m.Do("rpm -V clientmountd nnf-dm distribution")
		m.Do("id nnf-dm")
		if got := m.Do("stat -c '%n %a %U:%G' /etc/clientmountd /etc/nnf-dm /etc/nnf-dm/config.toml"); got !=
			"/etc/clientmountd 700 root:root\n/etc/nnf-dm 750 root:nnf-dm\n/etc/nnf-dm/config.toml 640 root:nnf-dm" {
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
	})

	m.Configure()
	m.Do("systemctl start clientmountd nnf-dm.socket && " + asUser + "nnf-dmctl version")
	m.Do("echo '# edited' >>/etc/clientmountd/config.toml")

	t.Run("again", func(t *testing.T) {
		m := m.For(t)
		pid := m.Property("clientmountd", "MainPID")
		quiet(t, m, machine.DNF+"reinstall clientmountd nnf-dm")
		m.Await("the daemon runs anew", `p=$(systemctl show --value -p MainPID clientmountd); [ $p != 0 ] && [ $p != `+pid+` ] && systemctl is-active clientmountd`)
		m.Do("grep -qx '# edited' /etc/clientmountd/config.toml")
		if got := m.Property("clientmountd", "UnitFileState"); got != "enabled" {
			t.Errorf("the unit is %s", got)
		}
	})

	t.Run("removed", func(t *testing.T) {
		m := m.For(t)
		quiet(t, m, machine.DNF+"remove clientmountd nnf-dm")
		for _, unit := range []string{"clientmountd.service", "nnf-dm.socket", "nnf-dm.service"} {
			if got := m.Property(unit, "ActiveState") + " " + m.Property(unit, "LoadState"); got != "inactive not-found" {
				t.Errorf("%s is %s", unit, got)
			}
		}
		// What stays is the administrator's.
		left := m.Do(`find / -xdev \( -name '*clientmount*' -o -name '*nnf-dm*' \) -not -path '/proc/*' -not -path '/root/*' -not -path '/var/log/*' | sort`)
		if left != "/etc/clientmountd\n/etc/nnf-dm" {
			t.Errorf("left behind: %s", left)
		}
		if files := m.Do("cd /etc/clientmountd && find . -type f | sort | tr '\\n' ' '"); files != "./config.d/10-cluster.toml ./config.toml.rpmsave ./service.cert ./service.token " {
			t.Errorf("in /etc/clientmountd there is %s", files)
		}
	})
}

// Images are built where no systemd runs: the same links, and not a word.
func TestPackagesInChroot(t *testing.T) {
	m := packaged(t)
	// Without the mounts below it: there is no /run/systemd in it, and no /proc.
	m.Do("mkdir /mnt/image && mount --bind / /mnt/image && [ ! -e /mnt/image/run/systemd/system ]")
	if out := m.Do("chroot /mnt/image rpm -i --nodeps /root/repo/clientmountd-*.rpm /root/repo/nnf-dm-*.rpm 2>&1"); out != "" {
		t.Errorf("it says %s", out)
	}
	m.Do("[ -L /etc/systemd/system/multi-user.target.wants/clientmountd.service ] && [ -L /etc/systemd/system/sockets.target.wants/nnf-dm.socket ]")
	m.Do("chroot /mnt/image id nnf-dm && umount /mnt/image")
}
