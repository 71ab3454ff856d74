package container

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// exampleFeatures are features of the unchanged drop-ins in the examples directory.
var exampleFeatures = []feature{
	{"example of arguments", exampleOfArguments},
	{"examples for clientmountd", examplesForClientmountd},
	{"example of a group", exampleOfAGroup},
	{"example for newer systemd", exampleForNewerSystemd},
}

// example installs a drop-in, and fails the test if systemd logs anything about it.
func example(t *testing.T, m *machine.Machine, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(fixture.Root(t), "systemd/examples", file))
	if err != nil {
		t.Fatal(err)
	}
	m.Put("/etc/systemd/system/"+file, 0o644, text)
	m.Do("systemctl daemon-reload")
	if out := m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat _PID=1 | grep -F " + file + " || :"); out != "" {
		t.Errorf("systemd has logged a problem with %s: %s", file, out)
	}
}

// The arguments of the example, with the address of this cluster, override the configuration file,
// which has a wrong address.
func exampleOfArguments(t *testing.T, m *machine.Machine) {
	host, port, err := net.SplitHostPort(m.Fixture.Cluster.Address())
	if err != nil {
		t.Fatal(err)
	}
	for daemon, start := range units {
		example(t, m, daemon+".service.d/20-arguments.conf")
		m.Setting(daemon, "20-test", "[kubernetes]\nservice_host = \"192.0.2.1\"\nservice_port = \"1\"\n")
		m.Do("sed -i 's/=10.0.0.5/=" + host + "/; s/=6443/=" + port + "/' /etc/systemd/system/" + daemon + ".service.d/20-arguments.conf && systemctl daemon-reload && " + start)
	}
	has(t, exits(t, m, 3, asUser+"nnf-dmctl copy -w missing /mnt/nnf/x /lus/global/"), "could not find workflow")
}

// With each drop-in, the daemon becomes ready, in the host's mount namespace. 40-tight.conf has the
// rating in units.md.
func examplesForClientmountd(t *testing.T, m *machine.Machine) {
	for _, file := range []string{"30-hooks.conf", "40-tight.conf", "45-newer-systemd.conf", "60-core.conf"} {
		example(t, m, "clientmountd.service.d/"+file)
		m.Do("systemctl start clientmountd")
		hostMountNamespace(t, m)
		if file == "40-tight.conf" {
			m.Do("systemd-analyze security --threshold=47 clientmountd.service")
		}
		m.Do("systemctl stop clientmountd && rm /etc/systemd/system/clientmountd.service.d/" + file)
	}
}

// Members of the group can connect. Other users get an error with the reason.
func exampleOfAGroup(t *testing.T, m *machine.Machine) {
	example(t, m, "nnf-dm.socket.d/30-group.conf")
	m.Do("systemctl start nnf-dm.socket")
	has(t, exits(t, m, 6, "runuser -u bob -- nnf-dmctl version"), "no permission to connect to the socket")
	m.Do("runuser -u bob -g users -- nnf-dmctl version")
}

// The systemd of this machine supports the settings that the packaged unit omits because of older
// versions, and nnf-dm works with them.
func exampleForNewerSystemd(t *testing.T, m *machine.Machine) {
	example(t, m, "nnf-dm.service.d/45-newer-systemd.conf")
	m.Do("systemctl start nnf-dm.socket && " + asUser + "nnf-dmctl version && systemd-analyze security --threshold=12 nnf-dm.service")
	if v := m.Property("nnf-dm", "ProtectProc"); v != "invisible" {
		t.Errorf("the drop-in has no effect: ProtectProc is %q", v)
	}
}
