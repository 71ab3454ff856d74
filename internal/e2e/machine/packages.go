package machine

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// DNF is dnf without questions, set up as Enterprise Linux has it (--best: install
// upgrades what is there). The release only has to be some.
const DNF = "dnf -y -q --best --releasever=9 --setopt=install_weak_deps=False "

// distribution stands for the packages that the daemons' packages need: what
// they hold is on the machine, but rpm does not know it.
const distribution = `Name: distribution
Version: 1
Release: 1
Summary: what the machine has
License: none
BuildArch: noarch
Provides: /bin/sh systemd systemd-udev util-linux lvm2 nvme-cli xfsprogs
%description
What the machine has.
%files
`

// Packages are the binary packages in bin/rpm, of each the one that was made
// last; none when they have not been built.
func Packages(t testing.TB) []string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	list, err := newest(filepath.Join(root, "bin/rpm"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func newest(dir string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.x86_64.rpm"))
	if err != nil {
		return nil, err
	}
	last := map[string]string{} // by the package's name
	made := map[string]time.Time{}
	for _, file := range all {
		st, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		name := packageName(file)
		if last[name] == "" || st.ModTime().After(made[name]) {
			last[name], made[name] = file, st.ModTime()
		}
	}
	return slices.Sorted(maps.Values(last)), nil
}

// packageName is what is before version, release and architecture.
func packageName(file string) string {
	parts := strings.Split(filepath.Base(file), "-")
	return strings.Join(parts[:max(1, len(parts)-2)], "-")
}

// putPackages lays the packages into a folder of the machine.
func (m *Machine) putPackages(dir string) {
	m.t.Helper()
	for _, p := range Packages(m.t) {
		m.putPackage(p, dir)
	}
}

func (m *Machine) putPackage(path, dir string) {
	m.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Put(dir+"/"+filepath.Base(path), 0o644, data)
}

// Repository gives the machine a repository with the packages, and installs
// what stands for its distribution.
func (m *Machine) Repository() {
	m.t.Helper()
	m.putPackages("/root/repo")
	m.Offer("/root/repo")
}

// Offer makes a folder of packages the machine's repository, and installs what
// stands for its distribution.
func (m *Machine) Offer(dir string) {
	m.t.Helper()
	m.Put("/root/distribution.spec", 0o644, []byte(distribution))
	m.Put("/etc/yum.repos.d/local.repo", 0o644, []byte("[local]\nname=local\nbaseurl=file://"+dir+"\ngpgcheck=0\n"))
	m.Do("rpmbuild -bb --quiet --define '_rpmdir " + dir + "' --define '_topdir /root/build' /root/distribution.spec && createrepo_c -q " + dir +
		" && rpm -i " + dir + "/noarch/distribution-*.rpm")
}

// newerVersion is higher than any that git describe gives.
const newerVersion = "9999"

// NewerRepository adds to the machine's repository the packages of a next
// release: the same programs, with another line in the configuration files.
func (m *Machine) NewerRepository() {
	m.t.Helper()
	dir, err := os.MkdirTemp(m.World.Dir, "newer-") // goes with the lab, however that ends
	if err != nil {
		m.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	list, err := newer(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, p := range list {
		m.putPackage(p, "/root/repo")
	}
	m.Do("createrepo_c -q --update /root/repo")
}

// newer builds packages in a directory from what make rpm has built.
func newer(dir string) ([]string, error) {
	if err := layNewer(dir); err != nil {
		return nil, err
	}
	return packNewer(dir, newerVersion, "clientmountd", "nnf-dm")
}

// layNewer copies what the packages of make rpm install to dir/root. The configuration
// files get another default.
func layNewer(dir string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	script := `set -eu
cp -a "$1/bin/rpm/source/amd64/root" .
for config in root/etc/*/config.toml; do echo "# another default" >>"$config"; done`
	cmd := exec.Command("sh", "-c", script, "newer", root)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packages of a next release: %w: run make rpm\n%s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

// packNewer builds packages of a version from dir/root in dir, and returns the files.
func packNewer(dir, version string, names ...string) ([]string, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	args := []string{"--config", filepath.Join(root, "nfpm.yaml"), "rpm", "--root", filepath.Join(dir, "root"), dir}
	cmd := exec.Command(filepath.Join(root, "bin/packager"), append(args, names...)...)
	cmd.Env = append(os.Environ(), "GOARCH=amd64", "RPM_VERSION="+version, "RPM_RELEASE=1", "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("packages of a next release: %w: run make rpm\n%s", err, strings.TrimSpace(string(text)))
	}
	return filepath.Glob(filepath.Join(dir, "*.rpm"))
}

// OlderUnit is what the install of a daemon of the older generation has written to
// /etc/systemd/system (contract deploy.md 2). There is a blank behind the program,
// for arguments that are not there.
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

// NewerVersion is that of the newer package.
const NewerVersion = "99.0.0"

// Newer is the folder inside with a package of clientmountd that is newer than
// the installed one and has another default configuration; or why there is none.
func (m *Machine) Newer() (dir, why string) { return "/run/e2e/newer", m.whyNoNewer }

// makeNewer makes a package of clientmountd that is newer than those in bin/rpm, from
// the same sources. It returns the file, or why there is none.
func makeNewer(t testing.TB, dir string) (file, why string) {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	sources, _ := filepath.Glob(filepath.Join(root, "bin/rpm/source/compute-daemons-*/go.mod"))
	_, noPackager := os.Stat(filepath.Join(root, "bin/packager"))
	if noPackager != nil || len(sources) != 1 || len(Packages(t)) == 0 {
		return "", "there are no packages in bin/rpm, or no bin/packager: run make rpm ARCHES=amd64"
	}
	work := filepath.Join(dir, "newer")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := layNewer(work); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-mod=vendor", "-trimpath", "-tags", "grpcnotrace",
		"-ldflags", "-s -w -X github.com/compute-daemons/compute-daemons/internal/version.Version=v"+NewerVersion,
		"-o", filepath.Join(work, "root/usr/bin/clientmountd"), "./cmd/clientmountd")
	build.Dir = filepath.Dir(sources[0])
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the newer clientmountd: %v: %s", err, out)
	}
	files, err := packNewer(work, NewerVersion, "clientmountd")
	if err != nil || len(files) != 1 {
		t.Fatalf("the newer package of clientmountd: %q, %v", files, err)
	}
	return files[0], ""
}
