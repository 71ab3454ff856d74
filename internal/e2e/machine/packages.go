package machine

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/packaging"
)

// DNF is the dnf command without prompts.
const DNF = "dnf -y -q "

// distribution describes a package that provides the dependencies of the daemons' packages:
// their files are installed on the machine, but rpm does not know them.
const distribution = `{name: distribution, arch: all, version: "1", version_schema: none, release: "1", maintainer: none, license: none,
description: the files of the machine, rpm: {summary: the files of the machine},
provides: [/bin/sh, systemd, systemd-udev, util-linux, lvm2, nvme-cli, xfsprogs, openssh-clients]}
`

// Distribution builds the package that replaces the packages of the distribution.
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

// Packages returns the binary packages in bin/rpm, which must exist.
func Packages(t testing.TB) []string {
	t.Helper()
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(root, "bin/rpm/*.x86_64.rpm"))
	if err != nil || len(list) == 0 {
		t.Fatalf("the packages in bin/rpm are %q, %v: run make rpm ARCHES=amd64", list, err)
	}
	return list
}

// Repository is a signed dnf repository with the packages in bin/rpm, like that of make repo.
type Repository struct {
	Dir string // directory in the container
	URL string

	outside  string
	key      *packaging.Key
	packages []string
}

// Repository creates a repository for a container, in a directory of the container or, if web
// is set, on a web server, and adds its file to /etc/yum.repos.d.
func (m *Machine) Repository(web bool) *Repository {
	m.t.Helper()
	key, err := packaging.NewKey()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(key.Remove)
	r := &Repository{Dir: "/run/e2e/repo", outside: filepath.Join(m.Exchange, "repo"), URL: "file:///run/e2e/repo", key: key, packages: Packages(m.t)}
	if web {
		server := httptest.NewServer(http.FileServer(http.Dir(r.outside)))
		m.t.Cleanup(server.Close)
		r.URL = server.URL
	}
	r.make(m)
	m.Use(r.Dir)
	return r
}

// AddNewer adds the packages of the next release: the same programs, with different default
// configuration files.
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
	root, err := lab.Repository()
	if err == nil {
		err = packaging.MakeRepository(root, r.outside, r.URL, r.key, r.packages)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// Use adds the repository in a directory of the machine to the configuration of dnf.
func (m *Machine) Use(dir string) {
	m.t.Helper()
	m.PrepareDNF()
	m.Do("cp " + dir + "/compute-daemons.repo /etc/yum.repos.d/")
}

// PrepareDNF gives dnf the settings of Enterprise Linux, and installs the package that replaces
// the packages of the distribution.
func (m *Machine) PrepareDNF() {
	m.t.Helper()
	m.Put("/root/distribution.rpm", 0o644, Distribution(m.t))
	m.Put("/etc/dnf/dnf.conf", 0o644, []byte("[main]\nbest=True\nskip_if_unavailable=False\n"))
	m.Put("/etc/dnf/vars/releasever", 0o644, []byte("9\n")) // any value is valid
	m.Do("rpm -i /root/distribution.rpm && mkdir -p /etc/yum.repos.d")
}

// NewerVersion is the version of the newer packages, higher than any from git describe.
const NewerVersion = "9999.0.0"

// NewerRepository is the directory of a virtual machine with a repository that has a package
// of clientmountd. It is newer than the installed package and has a different default
// configuration.
const NewerRepository = "/run/e2e/newer"

// newerRepository creates that repository in a directory, from the sources of the packages in
// bin/rpm. It returns its files by their path in the repository.
func newerRepository(t testing.TB, dir string) map[string]string {
	t.Helper()
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	sources, _ := filepath.Glob(filepath.Join(root, "bin/rpm/source/compute-daemons-*/go.mod"))
	if len(sources) != 1 {
		t.Fatalf("the sources of the packages are %q: run make rpm ARCHES=amd64", sources)
	}
	program := filepath.Join(dir, "clientmountd")
	build := exec.Command("go", "build", "-buildvcs=false", "-mod=vendor", "-trimpath", "-tags", "grpcnotrace",
		"-ldflags", "-s -w -X github.com/compute-daemons/compute-daemons/internal/version.Version=v"+NewerVersion,
		"-o", program, "./cmd/clientmountd")
	build.Dir = filepath.Dir(sources[0])
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the newer clientmountd: %v: %s", err, out)
	}
	packages, err := newer(dir, program, "clientmountd")
	repo := filepath.Join(dir, "repo")
	if err == nil {
		err = packaging.MakeRepository(root, repo, "file://"+NewerRepository, nil, packages)
	}
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, pattern := range []string{"*.rpm", "*.repo", "repodata/*"} {
		found, _ := filepath.Glob(filepath.Join(repo, pattern))
		for _, path := range found {
			files[strings.TrimPrefix(path, repo+"/")] = path
		}
	}
	return files
}

// newer builds packages of NewerVersion in a directory, and returns them. They have the
// contents of those in bin/rpm, except for different default configuration files and, unless
// it is empty, the program clientmountd.
func newer(dir, clientmountd string, names ...string) ([]string, error) {
	root, err := lab.Repository()
	if err != nil {
		return nil, err
	}
	const script = `set -eu
cp -a "$1/bin/rpm/source/amd64/root" .
for config in root/etc/*/config.toml; do echo "# another default" >>"$config"; done
[ -z "$2" ] || cp "$2" root/usr/bin/clientmountd`
	cmd := exec.Command("sh", "-c", script, "newer", root, clientmountd)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("packages of the next release: %w: run make rpm ARCHES=amd64\n%s", err, out)
	}
	args := []string{"--config", filepath.Join(root, "nfpm.yaml"), "rpm", "--root", filepath.Join(dir, "root"), dir}
	env := []string{"GOARCH=amd64", "RPM_VERSION=" + NewerVersion, "RPM_RELEASE=1", "SOURCE_DATE_EPOCH=1700000000"}
	if err := packager(env, append(args, names...)...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*.rpm"))
}

// packager runs the program that builds packages.
func packager(env []string, args ...string) error {
	root, err := lab.Repository()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(root, "bin/packager"), args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packager %q: %w: run make bin/packager\n%s", args, err, out)
	}
	return nil
}

// OlderUnit returns the unit that "install" of an older daemon wrote to /etc/systemd/system.
// The space after the program precedes the arguments, of which there are none.
func OlderUnit(daemon, description string) []byte {
	return []byte(strings.NewReplacer("DAEMON", daemon, "DESCRIPTION", description).Replace(`[Unit]
Description=DESCRIPTION
Requires=network-online.target
After=network-online.target

[Service]
PIDFile=/var/run/DAEMON.pid
ExecStartPre=/bin/rm -f /var/run/DAEMON.pid
ExecStart=/usr/bin/DAEMON 
Restart=on-failure

[Install]
WantedBy=multi-user.target
`))
}
