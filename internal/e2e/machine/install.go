package machine

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Programs are the programs of an installation.
func Programs() (list []string) {
	for _, d := range product.Daemons {
		list = append(list, d.Programs()...)
	}
	return list
}

// Install installs the packages in bin/rpm. Nothing is enabled or started.
func (m *Machine) Install() {
	m.t.Helper()
	began := time.Now()
	defer func() { m.t.Logf("installed in %.1f s", time.Since(began).Seconds()) }()
	if m.Exchange != "" { // a virtual machine has them from the start
		for _, p := range Packages(m.t) {
			if err := copyFile(p, filepath.Join(m.Exchange, "rpm", filepath.Base(p))); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	// The distribution of the machine does not use rpm: what the packages need is there,
	// but rpm does not know it.
	m.Do("rpm -U --nodeps /run/e2e/rpm/*.rpm")
}

// Configure does what an administrator does before the first start: the
// credentials, and where the API server is. More settings go into a further
// file of config.d.
func (m *Machine) Configure() {
	m.t.Helper()
	for _, d := range product.Daemons {
		etc := product.Directory(d.Name)
		mode, err := strconv.ParseUint(d.SecretMode, 8, 32)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, file := range []string{product.TokenFile, product.CertFile} {
			data, err := os.ReadFile(filepath.Join(m.World.Cluster.Dir, d.Name, file))
			if err != nil {
				m.t.Fatal(err)
			}
			m.Put(etc+"/"+file, fs.FileMode(mode), data)
			m.Do("chown " + d.Owner + " " + etc + "/" + file)
		}
	}
	m.NameServer()
}

// NameServer names the API server and the credentials in the daemons' settings.
func (m *Machine) NameServer() {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.World.Cluster.Address())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, d := range product.Daemons {
		etc := product.Directory(d.Name)
		m.Setting(d.Name, "10-cluster", fmt.Sprintf(
			"[kubernetes]\nservice_host = %q\nservice_port = %q\ntoken_file = %q\ncert_file = %q\n\n[node]\nname = %q\n",
			host, port, etc+"/"+product.TokenFile, etc+"/"+product.CertFile, m.World.Node))
	}
}

// Setting writes a file of settings; the daemon reads it when it starts or is
// told to reload.
func (m *Machine) Setting(daemon, name, toml string) {
	m.t.Helper()
	m.Put("/etc/"+daemon+"/config.d/"+name+".toml", 0o644, []byte(toml))
}

// Edit writes a drop-in of a unit the way an administrator does. A systemctl of
// this age wants a terminal and an editor for it.
func (m *Machine) Edit(unit, text string) {
	m.t.Helper()
	m.Put("/root/drop-in", 0o644, []byte(text))
	m.Do("SYSTEMD_EDITOR='cp /root/drop-in' script -qec 'systemctl edit " + unit + "' /dev/null")
}
