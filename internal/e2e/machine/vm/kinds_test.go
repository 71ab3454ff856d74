package vm

import (
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Every kind of storage at once: xfs, gfs2, a raw device, and volumes over two
// namespaces, one by the device mapper's stripes and one by its raid.
func kinds(t *testing.T) {
	under(t, func(t *testing.T) {
		began := node(t).Do("date +%s") // --after-cursor leaves out one record too many when there are filters
		var sites []*site
		for _, name := range []string{"xfs", "gfs2", "raw", "striped"} {
			s := newSite(t, name)
			s.ask(nil)
			sites = append(sites, s)
		}
		for _, s := range sites {
			s.mounted()
		}
		xfs := sites[0]
		// The daemon is restarted while a job has a file open.
		before := xfs.Do("findmnt -n -o ID " + xfs.path(0) + "; sleep 1000 <" + xfs.path(0) + "/name >/dev/null 2>&1 & echo $! >/run/holder")
		xfs.Do("systemctl restart clientmountd && kill -0 $(cat /run/holder)")
		if after := xfs.Do("findmnt -n -o ID " + xfs.path(0)); after != before {
			t.Errorf("the restart made mount %s out of mount %s", after, before)
		}
		// The mount is in use: it says by whom, or that it may not see that, and goes
		// when they do.
		xfs.release()
		o := xfs.World.AwaitError(xfs.name)
		holder := "in use by pid " + xfs.Do("cat /run/holder") + " "
		if strings.HasSuffix(t.Name(), "tight") {
			holder = "processes may not be looked at, which takes CAP_SYS_PTRACE"
		}
		if text := o.DebugMessage(); !strings.Contains(text, holder) || strings.Contains(text, "other namespace") {
			t.Errorf("the status does not say %q, or more: %s", holder, text)
		}
		xfs.Do(`kill "$(cat /run/holder)"`)
		for _, s := range sites[1:] {
			s.release()
		}
		for _, s := range sites {
			s.unmounted()
			s.noTargets()
		}
		if left := xfs.Do("ls /run/clientmountd/mounts"); left != "" {
			t.Errorf("records are left: %s", left)
		}
		// A mount, its end, and that the rabbit has not taken the storage away when the
		// object goes: three records, with however many commands.
		var texts []string
		for line := range strings.Lines(sites[1].journal("--since=@" + began)) {
			text, _, _ := strings.Cut(line, " clientmount=")
			texts = append(texts, text)
		}
		if life := []string{"mounted file system", "unmounted file system", "NVMe namespaces are still attached"}; !slices.Equal(texts, life) {
			t.Errorf("of the life of one mount the journal has %q, want %q", texts, life)
		}
	})
}

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
		// Between the deactivation and the last hook: dlm still runs, and no node has a lock.
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
