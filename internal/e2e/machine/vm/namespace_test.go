package vm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// attach and detach do with a namespace what the rabbit does.
func (s *site) attach(nsid int) {
	s.t.Helper()
	s.Do(fmt.Sprintf("nvme attach-ns /dev/nvme0 -n %d -c 0,1", nsid))
}

func (s *site) detach(nsid int) {
	s.t.Helper()
	s.Do(fmt.Sprintf("nvme detach-ns /dev/nvme0 -n %d -c 0,1", nsid))
	s.Machine.Await(fmt.Sprintf("namespace %d is gone", nsid), fmt.Sprintf(
		`for d in /sys/block/nvme*; do [ "$(cat $d/nsid 2>/dev/null)" != %d ] || exit 1; done`, nsid))
}

// The rabbit attaches the namespace after the object is there.
func late(t *testing.T) {
	const nsid = attached + 1
	node(t).Do(fmt.Sprintf("nvme attach-ns /dev/nvme0 -n %d -c 0,1", nsid))
	s := newSite(t, "late")
	s.detach(nsid)
	s.ask(nil)
	s.World.AwaitStatus(s.name, func(o lab.Object) bool { return o.At("status", "mounts", 0, "ready") == false })
	s.Do("! findmnt -n " + s.path(0))
	s.attach(nsid)
	s.mounted()
	s.release()
	s.unmounted()
}

// Names of devices have nothing to do with what is on them: two namespaces
// exchange theirs between two mounts. Then the daemon is away, and meanwhile
// all numbers change that its record has.
func renumbered(t *testing.T) {
	a, b := newSite(t, "xfs"), newSite(t, "late")
	both := []*site{a, b}
	for _, s := range both {
		s.ask(nil)
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
		t.Fatal("the names have not changed: nothing would be tested")
	}
	for _, s := range both {
		s.ask(nil)
	}
	for _, s := range both {
		s.World.Await(s.name, "mounted")
		s.holds()
	}

	// The record of xfs has the number of its device; the next one to come gets it.
	number := a.Do("stat -L -c %t:%T " + a.mapped(0))
	a.Do("systemctl stop clientmountd && umount " + a.path(0) + " && lvchange -an " + a.vg)
	other := newSite(t, "raw")
	other.Do("lvchange -ay " + other.vg)
	if got := a.Do("stat -L -c %t:%T " + other.mapped(0)); got != number {
		t.Fatalf("the other volume has number %s, not %s: nothing would be tested", got, number)
	}
	a.Do("systemctl start clientmountd")
	a.Machine.Await("the mount is there again", "findmnt -n "+a.path(0))
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

// The storage goes away under a mount, as when the rabbit reboots. The unmount
// leaves nothing that leads nowhere, and says so; when the storage is back,
// under another name, it is mounted again.
func gone(t *testing.T) {
	s := newSite(t, "xfs")
	s.ask(nil)
	s.mounted()
	was := s.device(s.nsids[0])
	s.detach(s.nsids[0])
	s.release()
	s.unmounted()
	if text := s.journal("EVENT=diagnosis -x -o short"); !strings.Contains(text, "storage went away") || !strings.Contains(text, "Documentation: man:clientmountd(8)") || !strings.Contains(text, "What to do: ") {
		t.Errorf("the journal says %s", text)
	}
	s.attach(s.nsids[0])
	t.Logf("the namespace was %s and is %s", was, s.device(s.nsids[0]))
	s.ask(nil)
	s.World.Await(s.name, "mounted")
	s.isMounted(0)
	s.holds()
	s.release()
	s.unmounted()
}
