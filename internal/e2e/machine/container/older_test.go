package container

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// older is a package of an older daemon: one program and no units. The program here runs
// forever and does nothing.
const older = `Name: PACKAGE
Version: 0
Release: 1
Summary: the older daemon
License: none
%description
The older daemon.
%install
mkdir -p %{buildroot}/usr/bin
printf '#!/bin/sh\nwhile :; do sleep 1000; done\n' >%{buildroot}/usr/bin/DAEMON
chmod 755 %{buildroot}/usr/bin/DAEMON
%files
/usr/bin/DAEMON
`

// The packages replace those of the older daemons. The process and the unit of an older daemon
// stay until the administrator removes them, as the messages describe.
func TestOverOlderPackages(t *testing.T) {
	m, _ := packaged(t, true)
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

	transaction(t, m, install)
	m.Do("! rpm -q nnf-clientmount && rpm -V clientmountd nnf-dm")
	if got := m.Do("rpm -q --qf '%{VENDOR} ' clientmountd nnf-dm"); got != "compute-daemons compute-daemons " {
		t.Errorf("the packages are of %s", got)
	}
	m.Configure()
	for _, d := range daemons {
		if got := m.Property(d.name, "MainPID") + " " + m.Property(d.name, "ActiveState"); got != pids[d.name]+" active" {
			t.Errorf("the older process %s of %s: %s", pids[d.name], d.name, got)
		}
		hides := "/etc/systemd/system/" + d.name + ".service hides the package's unit; to use that run " + d.name + " remove, then " + d.name + " install and " + d.name + " start"
		has(t, m.Do(d.name+" status"), "is running...", "Warning: "+hides)
		has(t, says(t, m, 1, d.name+" install"), "Service has already been installed", d.name+": hint: "+hides)

		has(t, m.Do(d.name+" remove"), "/etc/systemd/system/"+d.name+".service.d/override.conf is yours and stays")
		m.Do(d.name + " install && " + d.name + " start && systemctl is-enabled " + d.enabled)
		if got := m.Property(d.name, "FragmentPath"); got != "/lib/systemd/system/"+d.name+".service" {
			t.Errorf("the unit in force is %s", got)
		}
		has(t, environment(m, d.name), "GOMAXPROCS=5\n")
		m.Do("! " + d.name + " status | grep Warning; ! kill -0 " + pids[d.name])
	}
	m.Do(asUser + "nnf-dmctl version")
	look(t, m)
}
