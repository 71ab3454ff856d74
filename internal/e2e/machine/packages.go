package machine

import (
	"maps"
	"os"
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
