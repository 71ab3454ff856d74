package vm

import (
	"fmt"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

const (
	mkfsXFS  = "mkfs.xfs -q $lv"
	mkfsGFS2 = "mkfs.gfs2 -q -O -p lock_nolock -j 1 -J 8 $lv"
)

func TestXFS(t *testing.T) {
	s := newSite(t, 1, mkfsXFS)
	s.UseProfile(lab.ProfileSpec{})
	s.mount("xfs")
	s.mounted("xfs")
	s.Do("echo data >" + s.path() + "/file && sync")
	// A restart of the daemon while a job has a file open.
	s.Do("sleep 1000 <" + s.path() + "/file >/dev/null 2>&1 & echo $! >/run/holder")
	s.Do("systemctl restart clientmountd")
	s.mounted("xfs")
	s.Do(`kill "$(cat /run/holder)"`)
	s.unmount()
	s.Do("[ ! -e " + s.path() + " ]")
}

func TestGFS2(t *testing.T) {
	s := newSite(t, 2, mkfsGFS2)
	profile := lab.Profile(s.Profile, lab.ProfileSpec{})
	// One node without locks: no lockspace is started, the volume is activated alone.
	commands := profile.At("data", "gfs2Storage", "blockDeviceCommands", "computeCommands").(map[string]any)
	delete(commands, "vgChange")
	commands["lvChange"].(map[string]any)["activate"] = "--activate y $VG_NAME/$LV_NAME"
	s.Apply(profile)
	s.mount("gfs2")
	s.mounted("gfs2")
	s.Do("echo data >" + s.path() + "/file")
	s.unmount()
}

func TestRaw(t *testing.T) {
	s := newSite(t, 3, "true")
	s.UseProfile(lab.ProfileSpec{})
	s.mount("none")
	s.Stage.Await(s.name(), "mounted")
	s.Do("[ -b " + s.path() + " ] && dd if=/dev/urandom of=" + s.path() + " bs=1M count=4 oflag=direct status=none")
	s.unmount()
}

// The rabbit attaches the namespace after the object is there.
func TestLateNamespace(t *testing.T) {
	const late = attached + 1
	attach := func(verb string) string {
		return fmt.Sprintf("nvme %s-ns /dev/nvme0 -n %d -c 0,1", verb, late)
	}
	node(t).Do(attach("attach"))
	s := newSite(t, late, mkfsXFS)
	s.Do(attach("detach"))
	s.Machine.Await("the namespace is gone", "! pvs --noheadings -o vg_name 2>/dev/null | grep -q "+s.vg)
	s.UseProfile(lab.ProfileSpec{})
	s.mount("xfs")
	time.Sleep(3 * time.Second)
	s.Do("! findmnt -n " + s.path())
	s.Do(attach("attach"))
	s.mounted("xfs")
	s.unmount()
}

// The daemon dies in the middle of a mount; the next one brings it to its end.
func TestKillMidMount(t *testing.T) {
	s := newSite(t, 4, mkfsXFS)
	s.UseProfile(lab.ProfileSpec{Hooks: map[string]lab.Hooks{"xfs": {"preMount": {"echo x >>/run/hook; sleep 4"}}}})
	s.mount("xfs")
	s.Machine.Await("the hook runs", "[ -e /run/hook ]")
	s.Do("kill -KILL $(systemctl show --value -p MainPID clientmountd)")
	s.mounted("xfs")
	if n := s.Do("findmnt -n -l -o TARGET | grep -c '^" + s.path() + "$'"); n != "1" {
		t.Errorf("mounted %s times", n)
	}
	s.unmount()
}

// Last, because it takes everybody's machine down: a reboot with a mount in
// place, then one without a warning.
func TestZReboot(t *testing.T) {
	s := newSite(t, 5, mkfsXFS)
	s.UseProfile(lab.ProfileSpec{})
	s.mount("xfs")
	s.mounted("xfs")
	s.Do("echo data >" + s.path() + "/file && sync")
	for name, restart := range map[string]func(){"reboot": s.Reboot, "power cut": s.PowerCut} {
		restart()
		s.Machine.Await("the mount is back after a "+name, "findmnt -n "+s.path()+" && grep -q data "+s.path()+"/file")
		s.mounted("xfs")
	}
	s.unmount()
}
