package container

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// older is the spec of a package of an older daemon: one program without units. This program writes
// its unit itself, and its daemon runs forever and does nothing.
const older = `Name: PACKAGE
Version: 0
Release: 1
Summary: the older daemon
License: none
%description
The older daemon.
%install
mkdir -p %{buildroot}/usr/bin
cat >%{buildroot}/usr/bin/DAEMON <<'END'
#!/bin/sh
case ${1-} in
install) shift; { echo '[Service]'; echo "ExecStart=/usr/bin/DAEMON $*"; } >/etc/systemd/system/DAEMON.service; exec systemctl daemon-reload ;;
start) exec systemctl start DAEMON ;;
esac
while :; do sleep 1000; done
END
chmod 755 %{buildroot}/usr/bin/DAEMON
%files
/usr/bin/DAEMON
`

// The packages replace those of the older daemons. The process and the unit of an older daemon
// stay until the administrator removes them as described in the messages. Afterwards the older
// packages replace the new ones. The commands are those of install.md.
func TestOverOlderPackages(t *testing.T) {
	blocks := withoutQuestions(t, 2, manual.Commands(t, fixture.Root(t), "docs/install.md", "internal/e2e/machine/container TestOverOlderPackages"))
	replace, back := strings.Split(strings.TrimSpace(blocks[0]), "\n"), blocks[1]
	if faq := withoutQuestions(t, 1, manual.Commands(t, fixture.Root(t), "docs/faq.md", "internal/e2e/machine/container TestOverOlderPackages"))[0]; faq != back {
		t.Errorf("docs/faq.md has %s\ndocs/install.md has %s", faq, back)
	}
	if len(replace) != 1+len(daemons) {
		t.Fatalf("docs/install.md replaces the older daemons with %q", replace)
	}
	m, _ := packaged(t, false)
	pids := map[string]string{}
	for _, d := range daemons {
		fill := strings.NewReplacer("PACKAGE", d.older, "DAEMON", d.name).Replace
		m.Put("/root/older.spec", 0o644, []byte(fill(older)))
		m.Do("rpmbuild -bb --quiet --define '_rpmdir /root/older' --define '_topdir /root/build' /root/older.spec && rpm -U --force-debian /root/older/x86_64/" + d.older + "-*.rpm")
		m.Put("/etc/systemd/system/"+d.name+".service", 0o644, machine.OlderUnit(d.name, d.described))
		m.Put("/etc/systemd/system/"+d.name+".service.d/override.conf", 0o644, []byte("[Service]\nEnvironment=GOMAXPROCS=5\n"))
		m.Do("systemctl daemon-reload && systemctl enable --now " + d.name)
		pids[d.name] = m.Property(d.name, "MainPID")
	}

	transaction(t, m, replace[0])
	m.Do("! rpm -q nnf-clientmount && rpm -V clientmountd nnf-dm")
	if got := m.Do("rpm -q --qf '%{VENDOR} ' clientmountd nnf-dm"); got != "compute-daemons compute-daemons " {
		t.Errorf("the vendors of the packages are %s", got)
	}
	m.Configure()
	for i, d := range daemons {
		if got := m.Property(d.name, "MainPID") + " " + m.Property(d.name, "ActiveState"); got != pids[d.name]+" active" {
			t.Errorf("the older process %s of %s: %s", pids[d.name], d.name, got)
		}
		hides := "/etc/systemd/system/" + d.name + ".service overrides the unit of the package; to use that unit, run " + d.name + " remove, then " + d.name + " install and " + d.name + " start"
		has(t, m.Do(d.name+" status"), "is running...", "Warning: "+hides)
		has(t, exits(t, m, 1, d.name+" install"), "Service has already been installed", d.name+": hint: "+hides)

		has(t, m.Do(replace[1+i]), "/etc/systemd/system/"+d.name+".service.d/override.conf is a local drop-in and is kept")
		m.Do("systemctl is-enabled " + d.enabled)
		if got := m.Property(d.name, "FragmentPath"); got != "/lib/systemd/system/"+d.name+".service" {
			t.Errorf("systemd uses the unit %s", got)
		}
		has(t, environment(m, d.name), "GOMAXPROCS=5\n")
		m.Do("! " + d.name + " status | grep Warning; ! kill -0 " + pids[d.name])
	}
	m.Do(asUser + "nnf-dmctl version")
	checkJournal(t, m)

	transaction(t, m, "cd /root/older/x86_64\n"+strings.ReplaceAll(back, "FLAGS", "--old-flag"))
	for _, d := range daemons {
		m.Do("rpm -q " + d.older + "-0-1 && systemctl is-active " + d.name)
		has(t, m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID `+d.name+`)/cmdline`), "/usr/bin/"+d.name+" --old-flag")
		has(t, environment(m, d.name), "GOMAXPROCS=5\n")
	}
}
