package machine

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// installed says where the folders of the repository go that mirror the
// installed tree.
var installed = map[string]string{
	"systemd/system":         "usr/lib/systemd/system",
	"systemd/system-preset":  "usr/lib/systemd/system-preset",
	"systemd/sysusers.d":     "usr/lib/sysusers.d",
	"systemd/tmpfiles.d":     "usr/lib/tmpfiles.d",
	"systemd/modules-load.d": "usr/lib/modules-load.d",
	"packaging/catalog":      "usr/lib/systemd/catalog",
	"etc":                    "etc",
}

// Install installs the daemons: the packages in bin/rpm when there are any,
// else the files as the packages would have them, with what scriptlets do.
// Nothing is enabled or started.
func (m *Machine) Install() {
	m.t.Helper()
	began := time.Now()
	defer func() { m.t.Logf("installed in %.1f s", time.Since(began).Seconds()) }()
	root, err := repository()
	if err != nil {
		m.t.Fatal(err)
	}
	if len(Packages(m.t)) > 0 {
		if m.rpms == "" {
			m.rpms = "/root/rpm"
			m.putPackages(m.rpms)
		}
		// The distribution below is not one of packages of this kind: what they need
		// is there, but rpm does not know.
		m.Do("rpm -U --nodeps " + m.rpms + "/*.rpm")
		return
	}
	archive, err := payload(root)
	if err != nil {
		m.t.Fatal(err)
	}
	m.feed("tar -x -C / --no-same-owner -f -", archive)
	m.Do("set -e; systemd-sysusers; systemd-tmpfiles --create /usr/lib/tmpfiles.d/{clientmountd,nnf-dm}.conf; journalctl --update-catalog; systemctl daemon-reload")
}

// payload is an archive of everything that an installation has.
func payload(root string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range Programs() {
		if err := addFile(w, filepath.Join(root, "bin", p), "usr/bin/"+p, 0o755); err != nil {
			return nil, fmt.Errorf("%w: run make build-daemon", err)
		}
	}
	for from, to := range installed {
		from = filepath.Join(root, from)
		err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".go" || filepath.Ext(path) == ".md" {
				return err
			}
			return addFile(w, path, to+strings.TrimPrefix(path, from), 0o644)
		})
		if err != nil {
			return nil, err
		}
	}
	err := w.Close() // writes the end
	return b.Bytes(), err
}

func addFile(w *tar.Writer, path, name string, mode int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: mode, Size: int64(len(data)), ModTime: time.Unix(1, 0), Typeflag: tar.TypeReg}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// Configure does what an administrator does before the first start: the
// credentials, and where the API server is. More settings go into a further
// file of config.d.
func (m *Machine) Configure() {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.World.Cluster.Address())
	if err != nil {
		m.t.Fatal(err)
	}
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
