package container

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// deployed is the entry of a daemon in the configuration of an existing installer. The name of the
// entry is also that of the directory with the credentials.
type deployed struct{ bin, entry, extra string }

var deployments = []deployed{
	{"nnf-dm", "nnf-data-movement", " \\\n  --kubernetes-qps 50 --kubernetes-burst 100"},
	{"clientmountd", "client-mount", ""},
}

// TestExistingInstaller runs the commands of an existing installer on a node without daemons and on
// a node with the packages. The daemons become ready on both.
func TestExistingInstaller(t *testing.T) {
	for name, machineOf := range map[string]func(*testing.T) *machine.Machine{
		"nothing installed": func(t *testing.T) *machine.Machine { return machine.Container(t) },
		"packages":          node,
	} {
		t.Run(name, func(t *testing.T) {
			m := machineOf(t)
			m.Do("rm -f /etc/{clientmountd,nnf-dm}/config.d/* /etc/{clientmountd,nnf-dm}/service.*")
			for round := range 2 { // the second time the programs are new
				for _, d := range deployments {
					d.deploy(t, m)
					d.ready(t, m, round)
				}
			}
		})
	}
}

// deploy runs the commands of the installer.
func (d deployed) deploy(t *testing.T, m *machine.Machine) {
	t.Helper()
	etc := "/etc/" + d.entry
	m.Do("mkdir -p " + etc)
	for _, file := range []string{"service.token", "service.cert"} {
		data, err := os.ReadFile(filepath.Join(m.Fixture.Cluster.Dir, d.bin, file))
		if err != nil {
			t.Fatal(err)
		}
		m.Put(etc+"/"+file, 0o644, data)
	}
	m.Do("systemctl stop " + d.bin + " || :; /usr/bin/" + d.bin + " remove || :")
	program(t, m, d.bin)
	m.Do("/usr/bin/" + d.bin + " -h")
	m.Do("/usr/bin/" + d.bin + " install || :")
	host, port, err := net.SplitHostPort(m.Fixture.Cluster.Address())
	if err != nil {
		t.Fatal(err)
	}
	override := fmt.Sprintf(`[Service]
ExecStart=
ExecStart=/usr/bin/%s \
  --kubernetes-service-host=%s \
  --kubernetes-service-port=%s \
  --service-token-file=%s/service.token \
  --service-cert-file=%s/service.cert%s
Environment=GOGC=off
Environment=GOMEMLIMIT=20MiB
Environment=GOMAXPROCS=5
Environment=HTTP2_PING_TIMEOUT_SECONDS=60
`, d.bin, host, port, etc, etc, d.extra)
	m.Put("/etc/systemd/system/"+d.bin+".service.d/override.conf", 0o644, []byte(override))
	m.Do("systemctl daemon-reload && systemctl start " + d.bin)
}

// ready checks the state after deploy.
func (d deployed) ready(t *testing.T, m *machine.Machine, round int) {
	t.Helper()
	if got := m.Property(d.bin, "ActiveState") + " " + m.Property(d.bin, "Type"); got != "active notify" {
		t.Errorf("round %d: %s is %s", round, d.bin, got)
	}
	line := m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID ` + d.bin + `)/cmdline`)
	has(t, line, "--service-token-file=/etc/"+d.entry+"/service.token")
	has(t, environment(m, d.bin), "GOGC=off\n", "GOMEMLIMIT=20MiB\n", "GOMAXPROCS=5\n", "HTTP2_PING_TIMEOUT_SECONDS=60\n")
	warning := m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -p warning _PID=" + m.Property(d.bin, "MainPID"))
	has(t, warning, "/etc/"+d.entry+"/service.token", "chmod")
	if n := strings.Count(warning, "\n"); n > 1 {
		t.Errorf("there are other warnings than that about the token: %s", warning)
	}
	if d.bin == "nnf-dm" {
		program(t, m, "nnf-dmctl")
		has(t, exits(t, m, 3, asUser+"nnf-dmctl copy -w missing /mnt/nnf/x /lus/global/"), "could not find workflow")
	}
	m.Do("systemctl is-enabled " + d.bin)
}
