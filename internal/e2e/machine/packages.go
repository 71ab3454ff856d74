package machine

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/packaging"
)

// DNF is dnf without questions.
const DNF = "dnf -y -q "

// distribution stands in for the packages that the daemons' packages need: the machine
// has their files, but rpm does not know it.
const distribution = `{name: distribution, arch: all, version: "1", version_schema: none, release: "1", maintainer: none, license: none,
description: what the machine has, rpm: {summary: what the machine has},
provides: [/bin/sh, systemd, systemd-udev, util-linux, lvm2, nvme-cli, xfsprogs, openssh-clients]}
`

// Distribution builds the package that stands in for those of the distribution.
func Distribution(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "distribution.yaml")
	if err := os.WriteFile(config, []byte(distribution), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := packager(nil, "--config", config, "rpm", dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "distribution-1-1.noarch.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Packages returns the binary packages in bin/rpm, which must have been built.
func Packages(t testing.TB) []string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(root, "bin/rpm/*.x86_64.rpm"))
	if err != nil || len(list) == 0 {
		t.Fatalf("the packages in bin/rpm are %q, %v: run make rpm ARCHES=amd64", list, err)
	}
	return list
}

// Repository is a signed dnf repository with the packages in bin/rpm, as make repo makes
// it.
type Repository struct {
	Dir string // inside

	outside, url string
	key          *packaging.Key
	packages     []string
}

// Repository makes a repository for a container, in a directory of the container or, if
// web is set, on a web server, and puts its file into /etc/yum.repos.d.
func (m *Machine) Repository(web bool) *Repository {
	m.t.Helper()
	key, err := packaging.NewKey()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(key.Remove)
	r := &Repository{Dir: "/run/e2e/repo", outside: filepath.Join(m.Exchange, "repo"), url: "file:///run/e2e/repo", key: key, packages: Packages(m.t)}
	if web {
		server := httptest.NewServer(http.FileServer(http.Dir(r.outside)))
		m.t.Cleanup(server.Close)
		r.url = server.URL
	}
	r.make(m)
	m.Use(r.Dir)
	return r
}

// AddNewer adds the packages of a next release: the same programs, with another default in
// the configuration files.
func (r *Repository) AddNewer(m *Machine) {
	m.t.Helper()
	list, err := newer(m.t.TempDir(), "", "clientmountd", "nnf-dm")
	if err != nil {
		m.t.Fatal(err)
	}
	r.packages = append(r.packages, list...)
	r.make(m)
}

func (r *Repository) make(m *Machine) {
	m.t.Helper()
	root, err := repository()
	if err == nil {
		err = packaging.MakeRepository(root, r.outside, r.url, r.key, r.packages)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// Use makes dnf use the repository in a directory inside.
func (m *Machine) Use(dir string) {
	m.t.Helper()
	m.PrepareDNF()
	m.Do("cp " + dir + "/compute-daemons.repo /etc/yum.repos.d/")
}

// PrepareDNF gives dnf the settings of Enterprise Linux, and installs the package that
// stands in for those of the distribution.
func (m *Machine) PrepareDNF() {
	m.t.Helper()
	m.Put("/root/distribution.rpm", 0o644, Distribution(m.t))
	m.Put("/etc/dnf/dnf.conf", 0o644, []byte("[main]\nbest=True\nskip_if_unavailable=False\n"))
	m.Put("/etc/dnf/vars/releasever", 0o644, []byte("9\n")) // any will do
	m.Do("rpm -i /root/distribution.rpm && mkdir -p /etc/yum.repos.d")
}
