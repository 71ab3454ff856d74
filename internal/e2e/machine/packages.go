package machine

import (
	"os"
	"path/filepath"
	"testing"
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

// Packages are the binary packages in bin/rpm, none when they have not been
// built.
func Packages(t testing.TB) []string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(root, "bin/rpm/*.x86_64.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	return list
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
	m.Put("/root/distribution.spec", 0o644, []byte(distribution))
	m.Put("/etc/yum.repos.d/local.repo", 0o644, []byte("[local]\nname=local\nbaseurl=file:///root/repo\ngpgcheck=0\n"))
	m.Do("rpmbuild -bb --quiet --define '_rpmdir /root/repo' --define '_topdir /root/build' /root/distribution.spec && createrepo_c -q /root/repo && " +
		DNF + "install distribution")
}
