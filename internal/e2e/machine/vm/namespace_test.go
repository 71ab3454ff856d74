package vm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// attach and detach attach and detach a namespace, as the rabbit does.
func (s *site) attach(nsid int) {
	s.t.Helper()
	s.Do(fmt.Sprintf("nvme attach-ns /dev/nvme0 -n %d -c 0,1", nsid))
}

func (s *site) detach(nsid int) {
	s.t.Helper()
	s.Do(fmt.Sprintf("nvme detach-ns /dev/nvme0 -n %d -c 0,1", nsid))
	s.Machine.Await(fmt.Sprintf("namespace %d is detached", nsid), fmt.Sprintf(
		`for d in /sys/block/nvme*; do [ "$(cat $d/nsid 2>/dev/null)" != %d ] || exit 1; done`, nsid))
}

// The rabbit attaches the namespace after the ClientMount was created.
func late(t *testing.T) {
	const nsid = attached + 1
	node(t).Do(fmt.Sprintf("nvme attach-ns /dev/nvme0 -n %d -c 0,1", nsid))
	s := newSite(t, "late")
	s.detach(nsid)
	s.requestMounts(nil)
	s.Fixture.AwaitStatus(s.name, func(o lab.Object) bool { return o.At("status", "mounts", 0, "ready") == false })
	s.Do("! findmnt -n " + s.path(0))
	s.attach(nsid)
	s.mounted()
	s.release()
	s.unmounted()
}

// Names of devices are unrelated to their contents. Two namespaces exchange their names between
// two mounts. Then, while the daemon is stopped, all device numbers in its record change.
func renumbered(t *testing.T) {
	a, b := newSite(t, "xfs"), newSite(t, "late")
	both := []*site{a, b}
	for _, s := range both {
		s.requestMounts(nil)
	}
	for _, s := range both {
		s.mounted()
		s.release()
	}
	for _, s := range both {
		s.unmounted()
	}
	was := [2]string{a.device(a.nsids[0]), b.device(b.nsids[0])}
	a.detach(a.nsids[0])
	b.detach(b.nsids[0])
	b.attach(b.nsids[0])
	is := [2]string{1: b.device(b.nsids[0])}
	a.attach(a.nsids[0])
	is[0] = a.device(a.nsids[0])
	t.Logf("xfs was %s and is %s, late was %s and is %s", was[0], is[0], was[1], is[1])
	if is[0] == was[0] || is[1] == was[1] {
		t.Fatal("the names have not changed, so the test is meaningless")
	}
	for _, s := range both {
		s.requestMounts(nil)
	}
	for _, s := range both {
		s.Fixture.Await(s.name, "mounted")
		s.holds()
	}

	// The record of xfs has the number of its device, which the next device gets.
	number := a.Do("stat -L -c %t:%T " + a.mapped(0))
	a.Do("systemctl stop clientmountd && umount " + a.path(0) + " && lvchange -an " + a.vg)
	other := newSite(t, "raw")
	other.Do("lvchange -ay " + other.vg)
	if got := a.Do("stat -L -c %t:%T " + other.mapped(0)); got != number {
		t.Fatalf("the other volume has number %s, not %s, so the test is meaningless", got, number)
	}
	a.Do("systemctl start clientmountd")
	a.Machine.Await("the volume is mounted again", "findmnt -n "+a.path(0))
	a.isMounted(0)
	a.holds()
	a.Do("lvchange -an " + other.vg)
	for _, s := range both {
		s.release()
	}
	for _, s := range both {
		s.unmounted()
	}
}

// The storage of a mount is detached, as when the rabbit reboots. The unmount leaves no stale
// device and reports this. When the storage is attached again, under another name, it can be
// mounted again.
func gone(t *testing.T) {
	s := newSite(t, "xfs")
	s.requestMounts(nil)
	s.mounted()
	was := s.device(s.nsids[0])
	s.Do("clientmountd health")
	s.detach(s.nsids[0])
	line := s.Do("clientmountd health; [ $? = 1 ]")
	if want := "mount of " + s.path(0) + " without its device: the device "; !strings.HasPrefix(line, want) {
		t.Errorf("health prints %q, not %q", line, want)
	}
	s.release()
	s.unmounted()
	if text := s.journal("EVENT=diagnosis -x -o short"); !strings.Contains(text, "storage was detached before") || !strings.Contains(text, "Documentation: man:clientmountd(8)") || !strings.Contains(text, "What to do: ") {
		t.Errorf("the journal has %s", text)
	}
	s.attach(s.nsids[0])
	t.Logf("the namespace was %s and is %s", was, s.device(s.nsids[0]))
	s.requestMounts(nil)
	s.Fixture.Await(s.name, "mounted")
	s.isMounted(0)
	s.holds()
	s.release()
	s.unmounted()
}
