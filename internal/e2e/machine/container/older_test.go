package container

import (
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// older is the package that clientmountd takes the place of: one program, and no
// units. The program here runs for ever and does nothing.
const older = `Name: nnf-clientmount
Version: 7.5
Release: 1
Summary: the older daemon
License: none
BuildArch: noarch
%description
The older daemon.
%install
mkdir -p %{buildroot}/usr/bin
printf '#!/bin/sh\nwhile :; do sleep 1000; done\n' >%{buildroot}/usr/bin/clientmountd
chmod 755 %{buildroot}/usr/bin/clientmountd
%files
/usr/bin/clientmountd
`

// olderUnit is what the older daemon's install has written (contract deploy.md
// 2).
const olderUnit = `[Unit]
Description=Data Workflow Service (DWS) Client Mount Service
Requires=network-online.target
After=network-online.target

[Service]
PIDFile=/var/run/clientmountd.pid
ExecStartPre=/bin/rm -f /var/run/clientmountd.pid
ExecStart=/usr/bin/clientmountd
Restart=on-failure

[Install]
WantedBy=multi-user.target
`

// The package over an older installation: the older package goes, its process
// and its unit stay until the administrator says so, the words tell him how, and
// what they tell works.
func TestOverOlderPackage(t *testing.T) {
	m := packaged(t)
	m.Put("/root/older.spec", 0o644, []byte(older))
	m.Do("rpmbuild -bb --quiet --define '_rpmdir /root/older' --define '_topdir /root/build' /root/older.spec && rpm -U --force-debian /root/older/noarch/*.rpm")
	m.Put("/etc/systemd/system/clientmountd.service", 0o644, []byte(olderUnit))
	m.Put("/etc/systemd/system/clientmountd.service.d/override.conf", 0o644, []byte("[Service]\nEnvironment=GOMAXPROCS=5\n"))
	m.Do("systemctl daemon-reload && systemctl enable --now clientmountd")
	pid := m.Property("clientmountd", "MainPID")

	quiet(t, m, machine.DNF+"install clientmountd")
	m.Do("! rpm -q nnf-clientmount && rpm -V clientmountd")
	if got := m.Property("clientmountd", "MainPID") + " " + m.Property("clientmountd", "ActiveState"); got != pid+" active" {
		t.Errorf("the older process %s: %s", pid, got)
	}
	m.Do("groupadd -r nnf-dm") // for the other daemon's credentials
	m.Configure()
	const hides = "/etc/systemd/system/clientmountd.service hides the package's unit; to use that run clientmountd remove, then clientmountd install and clientmountd start"
	has(t, m.Do("clientmountd status"), "is running...", "Warning: "+hides)
	has(t, says(t, m, 1, "clientmountd install"), "Service has already been installed", "Hint:  "+hides)

	has(t, m.Do("clientmountd remove"), "/etc/systemd/system/clientmountd.service.d/override.conf is yours and stays")
	m.Do("clientmountd install && clientmountd start")
	if got := m.Property("clientmountd", "FragmentPath") + " " + m.Property("clientmountd", "UnitFileState"); got != "/lib/systemd/system/clientmountd.service enabled" {
		t.Errorf("the unit in force is %s", got)
	}
	has(t, environment(m, "clientmountd"), "GOMAXPROCS=5\n")
	m.Do("! clientmountd status | grep Warning; ! kill -0 " + pid)
	look(t, m)
}
