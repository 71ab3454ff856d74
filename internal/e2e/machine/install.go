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

// Programs returns the programs of all daemons and their clients.
func Programs() (list []string) {
	for _, d := range product.Daemons {
		list = append(list, d.Programs()...)
	}
	return list
}

// Install installs the packages in bin/rpm. It enables and starts nothing.
func (m *Machine) Install() {
	m.t.Helper()
	started := time.Now()
	defer func() { m.t.Logf("installed in %.1f s", time.Since(started).Seconds()) }()
	if m.Exchange != "" { // a virtual machine has them in its ram disk
		for _, p := range Packages(m.t) {
			if err := copyFile(p, filepath.Join(m.Exchange, "rpm", filepath.Base(p))); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	// The distribution of the machine does not use rpm: the dependencies are installed, but rpm
	// does not know them.
	m.Do("rpm -U --nodeps /run/e2e/rpm/*.rpm")
}

// Configure does what an administrator does before the first start: it installs the
// credentials and sets the address of the API server. More settings can be added with Setting.
func (m *Machine) Configure() {
	m.t.Helper()
	for _, d := range product.Daemons {
		etc := product.Directory(d.Name)
		mode, err := strconv.ParseUint(d.SecretMode, 8, 32)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, file := range []string{product.TokenFile, product.CertFile} {
			data, err := os.ReadFile(filepath.Join(m.Fixture.Cluster.Dir, d.Name, file))
			if err != nil {
				m.t.Fatal(err)
			}
			m.Put(etc+"/"+file, fs.FileMode(mode), data)
			m.Do("chown " + d.Owner + " " + etc + "/" + file)
		}
	}
	m.NameServer()
}

// NameServer writes the settings with the API server and the credentials.
func (m *Machine) NameServer() {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.Fixture.Cluster.Address())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, d := range product.Daemons {
		etc := product.Directory(d.Name)
		m.Setting(d.Name, "10-cluster", fmt.Sprintf(
			"[kubernetes]\nservice_host = %q\nservice_port = %q\ntoken_file = %q\ncert_file = %q\n\n[node]\nname = %q\n",
			host, port, etc+"/"+product.TokenFile, etc+"/"+product.CertFile, m.Fixture.Node))
	}
}

// Setting writes a configuration file, which the daemon reads at its next start or reload.
func (m *Machine) Setting(daemon, name, toml string) {
	m.t.Helper()
	m.Put("/etc/"+daemon+"/config.d/"+name+".toml", 0o644, []byte(toml))
}

// Edit writes a drop-in of a unit with systemctl edit, as an administrator does. The systemctl
// of the machine requires a terminal and an editor.
func (m *Machine) Edit(unit, text string) {
	m.t.Helper()
	m.Put("/root/drop-in", 0o644, []byte(text))
	m.Do("SYSTEMD_EDITOR='cp /root/drop-in' script -qec 'systemctl edit " + unit + "' /dev/null")
}
