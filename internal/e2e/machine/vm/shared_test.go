package vm

import (
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// cluster has one node, this one. Corosync wants each brace on a line of its
// own.
const cluster = `totem {
 version: 2
 cluster_name: nnf
 transport: knet
 crypto_cipher: none
 crypto_hash: none
}
nodelist {
 node {
  ring0_addr: 127.0.0.1
  name: compute-01
  nodeid: 1
 }
}
quorum {
 provider: corosync_votequorum
 expected_votes: 1
}
logging {
 to_syslog: yes
}
`

const (
	startCluster = "systemctl start corosync dlm lvmlockd"
	stopCluster  = "systemctl stop lvmlockd dlm corosync"
)

// gfs2 as on a real rabbit: locks by dlm, the volume group's by lvmlockd, and the
// cluster started and stopped by the profile's hooks. After all other tests,
// because lvm asks lvmlockd from here on.
func TestZSharedGFS2(t *testing.T) {
	m := node(t)
	m.Put("/etc/corosync/corosync.conf", 0o644, []byte(cluster))
	m.Put("/etc/dlm/dlm.conf", 0o644, []byte("enable_fencing=0\nenable_startup_fencing=0\nenable_quorum_lockspace=0\n"))
	m.Do(`set -e; systemctl unmask -q corosync dlm lvmlockd; systemctl daemon-reload
		sed -i 's/^.*use_lvmlockd = .*/use_lvmlockd = 1/' /etc/lvm/lvm.conf; ` + startCluster)
	s := newSite(t, 6, "mkfs.gfs2 -q -O -p lock_dlm -t nnf:e2e -j 1 -J 8 $lv", "--shared")
	s.Do("vgchange --lock-stop " + s.vg + "; " + stopCluster)
	s.UseProfile(lab.ProfileSpec{Hooks: map[string]lab.Hooks{"gfs2": {
		"preActivate": {startCluster}, "postDeactivate": {stopCluster},
	}}})
	s.mount("gfs2")
	s.mounted("gfs2")
	s.Do("echo data >" + s.path() + "/file && dlm_tool ls | grep -q lvm_" + s.vg)
	s.Want(s.name(), "unmounted")
	s.Stage.Await(s.name(), "unmounted")
	for _, unit := range []string{"corosync", "dlm", "lvmlockd"} {
		if state := s.Property(unit, "ActiveState"); state != "inactive" {
			t.Errorf("after the last hook %s is %s", unit, state)
		}
	}
	s.Do("! findmnt -n " + s.path() + " && ! dmsetup ls | grep -q lv--0")
	s.Delete(s.name())
}
