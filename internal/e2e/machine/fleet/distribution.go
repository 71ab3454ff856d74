package fleet

import "github.com/compute-daemons/compute-daemons/internal/e2e/machine"

// Distribution has rpm know on these nodes what the distribution has brought.
func (f *Fleet) Distribution(nodes ...*Node) {
	f.t.Helper()
	distribution := machine.Distribution(f.t)
	for _, n := range nodes {
		n.Put("/root/distribution.rpm", 0o644, distribution)
		n.Do("rpm -i /root/distribution.rpm && rm /root/distribution.rpm")
	}
}

// Repository gives nodes a repository in which the distribution's packages are,
// not installed: what is installed there needs dnf.
func (f *Fleet) Repository(nodes ...*Node) {
	f.t.Helper()
	distribution := machine.Distribution(f.t)
	for _, n := range nodes {
		n.Put("/srv/repository/distribution.rpm", 0o644, distribution)
		n.Put("/etc/yum.repos.d/local.repo", 0o644, []byte("[local]\nname=local\nbaseurl=file:///srv/repository\ngpgcheck=0\n"))
		n.Put("/etc/dnf/vars/releasever", 0o644, []byte("9\n"))
		n.Do("createrepo_c -q /srv/repository")
	}
}
