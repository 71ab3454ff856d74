package clientmount

import (
	"errors"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Storage that went away while its volume was active leaves a device that leads
// nowhere. When it stayed, LVM would take the volume for active once the storage
// is back, and no mount would succeed any more.
func TestDeviceOfStorageThatIsGoneIsRemoved(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.fail["no lv"] = errors.New("gone")
	b.want(dws.Unmounted)
	b.machine.done()
	b.reconcile()
	b.expect("unmount", b.machine.done(), []string{
		"hook pre-unmount", "umount " + testPath, "remove " + testPath + " [" + testPath + "]",
		"lvs " + testVG, "dmsetup remove " + strings.TrimPrefix(testDevice, "/dev/mapper/"), "hook post-deactivate",
	})
	if s := b.server.object().Status; s.Error != nil || !s.AllReady {
		t.Errorf("%+v", s)
	}
}

func TestDeviceOfStorageThatIsGoneStays(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.fail["no lv"], b.machine.fail["dmsetup"] = errors.New("gone"), errors.New("Device or resource busy")
	b.want(dws.Unmounted)
	b.reconcile()
	s := b.server.object().Status
	if s.Error == nil || !strings.Contains(s.Error.DebugMessage, "unable to deactivate block device") || !strings.Contains(s.Error.DebugMessage, "storage went away") {
		t.Errorf("%+v", s.Error)
	}
	delete(b.machine.fail, "dmsetup")
	b.reconcile()
	if s := b.server.object().Status; s.Error != nil || !s.AllReady {
		t.Errorf("%+v", s)
	}
}

// What has the volume's name and is not the device mapper's is left alone, and
// so is what nobody has.
func TestNoDeviceNothingRemoved(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.fail["no lv"] = errors.New("gone")
	b.machine.lvs[testVG+"/"+testLV] = false
	b.want(dws.Unmounted)
	b.machine.done()
	b.reconcile()
	for _, line := range b.machine.done() {
		if strings.HasPrefix(line, "dmsetup") {
			t.Error(line)
		}
	}
}
