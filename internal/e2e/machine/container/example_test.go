package container

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// examplePromises are what the drop-ins in the examples directory do, as they are.
var examplePromises = []promise{
	{"example of arguments", exampleOfArguments},
	{"examples for clientmountd", examplesForClientmountd},
	{"example of a group", exampleOfAGroup},
	{"example for newer systemd", exampleForNewerSystemd},
}

// example installs a drop-in, and fails the test if systemd logs anything about it.
func example(t *testing.T, m *machine.Machine, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(world.Root(t), "systemd/examples", file))
	if err != nil {
		t.Fatal(err)
	}
	m.Put("/etc/systemd/system/"+file, 0o644, text)
	m.Do("systemctl daemon-reload")
	if out := m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat _PID=1 | grep -F " + file + " || :"); out != "" {
		t.Errorf("systemd does not like %s: %s", file, out)
	}
}

// The arguments of the example, with this cluster's address, override the configuration file,
// which has a wrong one.
func exampleOfArguments(t *testing.T, m *machine.Machine) {
	host, port, err := net.SplitHostPort(m.World.Cluster.Address())
	if err != nil {
		t.Fatal(err)
	}
	for daemon, start := range units {
		example(t, m, daemon+".service.d/20-arguments.conf")
		m.Setting(daemon, "20-test", "[kubernetes]\nservice_host = \"192.0.2.1\"\nservice_port = \"1\"\n")
		m.Do("sed -i 's/=10.0.0.5/=" + host + "/; s/=6443/=" + port + "/' /etc/systemd/system/" + daemon + ".service.d/20-arguments.conf && systemctl daemon-reload && " + start)
	}
	has(t, says(t, m, 3, asUser+"nnf-dmctl copy -w nobodys /mnt/nnf/x /lus/global/"), "could not find workflow")
}

// With each of them the daemon becomes ready, in the host's mount namespace. 40-tight.conf has
// the rating that install.md states.
func examplesForClientmountd(t *testing.T, m *machine.Machine) {
	for _, file := range []string{"30-hooks.conf", "40-tight.conf", "45-newer-systemd.conf", "60-core.conf"} {
		example(t, m, "clientmountd.service.d/"+file)
		m.Do("systemctl start clientmountd")
		mountNamespaceIsTheHosts(t, m)
		if file == "40-tight.conf" {
			m.Do("systemd-analyze security --threshold=47 clientmountd.service")
		}
		m.Do("systemctl stop clientmountd && rm /etc/systemd/system/clientmountd.service.d/" + file)
	}
}

// Members of the group may connect. Others get an error that gives the reason.
func exampleOfAGroup(t *testing.T, m *machine.Machine) {
	example(t, m, "nnf-dm.socket.d/30-group.conf")
	m.Do("systemctl start nnf-dm.socket")
	has(t, says(t, m, 6, "runuser -u bob -- nnf-dmctl version"), "you may not use the socket")
	m.Do("runuser -u bob -g users -- nnf-dmctl version")
}

// The systemd of this machine knows the settings that the packaged unit leaves out for older
// versions, and nnf-dm serves with them.
func exampleForNewerSystemd(t *testing.T, m *machine.Machine) {
	example(t, m, "nnf-dm.service.d/45-newer-systemd.conf")
	m.Do("systemctl start nnf-dm.socket && " + asUser + "nnf-dmctl version && systemd-analyze security --threshold=12 nnf-dm.service")
	if v := m.Property("nnf-dm", "ProtectProc"); v != "invisible" {
		t.Errorf("the drop-in is not in force: ProtectProc is %q", v)
	}
}
