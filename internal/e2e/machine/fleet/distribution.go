package fleet

import (
	"os"
	"path/filepath"
	"sync"
)

// distribution stands for the packages that the daemons' packages need: what
// they hold is on the nodes, but rpm does not know it.
const distribution = `{name: distribution, arch: all, version: "1", version_schema: none, release: "1", maintainer: none, license: none,
description: what the node has, rpm: {summary: what the node has},
provides: [/bin/sh, systemd, systemd-udev, util-linux, lvm2, nvme-cli, xfsprogs]}
`

var distributed struct {
	once sync.Once
	data []byte
	err  error
}

func (f *Fleet) distribution() []byte {
	f.t.Helper()
	distributed.once.Do(func() {
		config := f.write("distribution.yaml", 0o600, distribution)
		r := f.Run(nil, filepath.Join(f.repository(), "bin/packager"), "--config", config, "rpm", f.Dir)
		if r.Code != 0 {
			f.t.Fatalf("packager: %+v", r)
		}
		distributed.data, distributed.err = os.ReadFile(filepath.Join(f.Dir, "distribution-1-1.noarch.rpm"))
	})
	if distributed.err != nil {
		f.t.Fatal(distributed.err)
	}
	return distributed.data
}

// Distribution has rpm know on these nodes what the distribution has brought.
func (f *Fleet) Distribution(nodes ...*Node) {
	f.t.Helper()
	for _, n := range nodes {
		n.Put("/root/distribution.rpm", 0o644, f.distribution())
		n.Do("rpm -i /root/distribution.rpm && rm /root/distribution.rpm")
	}
}

// Repository gives nodes a repository in which the distribution's packages are,
// not installed: what is installed there needs dnf.
func (f *Fleet) Repository(nodes ...*Node) {
	f.t.Helper()
	for _, n := range nodes {
		n.Put("/srv/repository/distribution.rpm", 0o644, f.distribution())
		n.Put("/etc/yum.repos.d/local.repo", 0o644, []byte("[local]\nname=local\nbaseurl=file:///srv/repository\ngpgcheck=0\n"))
		n.Put("/etc/dnf/vars/releasever", 0o644, []byte("9\n"))
		n.Do("createrepo_c -q /srv/repository")
	}
}
