package vm

import (
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
)

// All kinds of storage at the same time: xfs, gfs2, a raw device, and volumes on two namespaces,
// one with the stripe target of the device mapper and one with its raid target.
func kinds(t *testing.T) {
	under(t, func(t *testing.T) {
		started := node(t).Do("date +%s") // --after-cursor with filters leaves out one record too many
		var sites []*site
		for _, name := range []string{"xfs", "gfs2", "raw", "striped"} {
			s := newSite(t, name)
			s.requestMounts(nil)
			sites = append(sites, s)
		}
		for _, s := range sites {
			s.mounted()
		}
		xfs := sites[0]
		if strings.HasSuffix(t.Name(), "shipped") {
			out := xfs.Do(storageCommands(t))
			for _, want := range []string{"/dev/nvme", " " + xfs.vg + " ", "\n" + strings.ReplaceAll(xfs.vg, "-", "--") + "-lv"} {
				if !strings.Contains(out, want) {
					t.Errorf("the commands of the guide do not show %q: %s", want, out)
				}
			}
		}
		// Restart the daemon while a job has a file open.
		before := xfs.Do("findmnt -n -o ID " + xfs.path(0) + "; sleep 1000 <" + xfs.path(0) + "/name >/dev/null 2>&1 & echo $! >/run/holder")
		xfs.Do("systemctl restart clientmountd && kill -0 $(cat /run/holder)")
		if after := xfs.Do("findmnt -n -o ID " + xfs.path(0)); after != before {
			t.Errorf("after the restart, mount %s has replaced mount %s", after, before)
		}
		// The mount is in use: the status names the process, or reports that processes cannot be
		// inspected. The unmount succeeds when the process has exited.
		xfs.release()
		o := xfs.Fixture.AwaitError(xfs.name)
		holder := "in use by pid " + xfs.Do("cat /run/holder") + " "
		if strings.HasSuffix(t.Name(), "tight") {
			holder = " processes without CAP_SYS_PTRACE: "
		}
		if text := o.DebugMessage(); !strings.Contains(text, holder) || strings.Contains(text, "other namespace") {
			t.Errorf("the status does not contain %q, or contains too much: %s", holder, text)
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
			t.Errorf("left behind: records %s", left)
		}
		// Three records, whatever the number of commands: the mount, the unmount, and that the
		// namespaces are still attached when the object is deleted.
		var texts []string
		for line := range strings.Lines(sites[1].journal("--since=@" + started)) {
			text, _, _ := strings.Cut(line, " clientmount=")
			texts = append(texts, text)
		}
		if want := []string{"mounted file system", "unmounted file system", "NVMe namespaces are still attached"}; !slices.Equal(texts, want) {
			t.Errorf("the records of one mount are %q, want %q", texts, want)
		}
	})
}

// cluster is the configuration of Corosync with one node. Corosync requires each brace on a
// separate line.
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

// gfs2 as on a real rabbit: dlm manages the locks of the file system, lvmlockd those of the volume
// group, and hooks of the profile start and stop the cluster. This stage is late, because LVM
// uses lvmlockd from here on.
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
		s.requestMounts(fixture.Hooks{"preActivate": {startCluster}, "postDeactivate": {"dlm_tool status >/run/dlm; dlm_tool ls >/run/lockspaces", stopCluster}})
		s.mounted()
		if spaces := s.Do("dlm_tool ls"); !strings.Contains(spaces, "name          lvm_"+s.vg+"\n") || !strings.Contains(spaces, "name          e2e\n") {
			t.Errorf("while it is mounted, the lockspaces are %s", spaces)
		}
		s.release()
		s.unmounted()
		// Between deactivation and last hook: dlm still runs, and no node has a lock.
		if spaces := s.Do("[ -s /run/dlm ] && cat /run/lockspaces"); spaces != "" {
			t.Errorf("after the deactivation, the lockspaces are %s", spaces)
		}
		s.Do("rm /run/dlm /run/lockspaces")
		for _, unit := range []string{"corosync", "dlm", "lvmlockd"} {
			if state := s.Property(unit, "ActiveState"); state != "inactive" {
				t.Errorf("after the last hook, %s is %s", unit, state)
			}
		}
		s.noTargets()
	})
}
