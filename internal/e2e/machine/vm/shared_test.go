package vm

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
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
// cluster started and stopped by the profile's hooks. Late, because lvm asks
// lvmlockd from here on.
func shared(t *testing.T) {
	m := node(t)
	m.Put("/etc/corosync/corosync.conf", 0o644, []byte(cluster))
	m.Put("/etc/dlm/dlm.conf", 0o644, []byte("enable_fencing=0\nenable_startup_fencing=0\nenable_quorum_lockspace=0\n"))
	m.Do(`set -e; systemctl unmask -q corosync dlm lvmlockd; systemctl daemon-reload
		sed -i 's/^.*use_lvmlockd = .*/use_lvmlockd = 1/' /etc/lvm/lvm.conf; ` + startCluster)
	s := newSite(t, "shared")
	s.Do("vgchange --lock-stop " + s.vg + "; " + stopCluster)

	under(t, func(t *testing.T) {
		s := newSite(t, "shared")
		s.ask(world.Hooks{"preActivate": {startCluster}, "postDeactivate": {"dlm_tool status >/run/dlm; dlm_tool ls >/run/lockspaces", stopCluster}})
		s.mounted()
		if spaces := s.Do("dlm_tool ls"); !strings.Contains(spaces, "name          lvm_"+s.vg+"\n") || !strings.Contains(spaces, "name          e2e\n") {
			t.Errorf("while it is mounted, the lockspaces are %s", spaces)
		}
		s.release()
		s.unmounted()
		// Between the deactivation and the last hook: dlm still runs, and nobody has a lock.
		if spaces := s.Do("[ -s /run/dlm ] && cat /run/lockspaces"); spaces != "" {
			t.Errorf("after the deactivation, the lockspaces are %s", spaces)
		}
		s.Do("rm /run/dlm /run/lockspaces")
		for _, unit := range []string{"corosync", "dlm", "lvmlockd"} {
			if state := s.Property(unit, "ActiveState"); state != "inactive" {
				t.Errorf("after the last hook %s is %s", unit, state)
			}
		}
		s.noTargets()
	})
}
