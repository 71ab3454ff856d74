package clientmount

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// Storage that was detached while its volume was active leaves a stale device. If the
// device were not removed, LVM would consider the volume active when the storage is
// attached again, and every mount would fail.
func TestStaleDeviceIsRemoved(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.fail["no lv"] = errors.New("gone")
	f.want(dws.Unmounted)
	f.machine.done()
	f.reconcile()
	f.expect("unmount", f.machine.done(), []string{
		"hook pre-unmount", "umount " + testPath, "remove " + testPath + " [" + testPath + "]",
		"lvs " + testVG, "dmsetup remove " + strings.TrimPrefix(testDevice, "/dev/mapper/"), "hook post-deactivate",
	})
	if s := f.server.object().Status; s.Error != nil || !s.AllReady {
		t.Errorf("%+v", s)
	}
}

func TestStaleDeviceCannotBeRemoved(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.fail["no lv"], f.machine.fail["dmsetup"] = errors.New("gone"), errors.New("Device or resource busy")
	f.want(dws.Unmounted)
	f.reconcile()
	s := f.server.object().Status
	if s.Error == nil || !strings.Contains(s.Error.DebugMessage, "unable to deactivate block device") || !strings.Contains(s.Error.DebugMessage, "storage was detached") {
		t.Errorf("%+v", s.Error)
	}
	delete(f.machine.fail, "dmsetup")
	f.reconcile()
	if s := f.server.object().Status; s.Error != nil || !s.AllReady {
		t.Errorf("%+v", s)
	}
}

// Nothing is removed if there is no device, or if the device mapper has another name for
// it.
func TestNoStaleDevice(t *testing.T) {
	for name, change := range map[string]func(*fakeMachine){
		"no device":      func(m *fakeMachine) { m.lvs[testVG+"/"+testLV] = false },
		"another device": func(m *fakeMachine) { m.dmName = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newMounted(t, dws.TypeXFS)
			f.machine.fail["no lv"] = errors.New("gone")
			change(f.machine)
			f.want(dws.Unmounted)
			f.machine.done()
			f.reconcile()
			ran := f.machine.done()
			if !slices.Contains(ran, "lvs "+testVG) {
				t.Errorf("lvs did not run: %q", ran)
			}
			for _, line := range ran {
				if strings.HasPrefix(line, "dmsetup") {
					t.Error(line)
				}
			}
		})
	}
}

// If the device is attached late, rescans find it. Their number is limited.
func TestActivationRetry(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.fail["no lv"] = errors.New("yes")
	times := 0
	f.machine.rescan = func(m *fakeMachine) {
		if times++; times == 2 {
			m.mu.Lock()
			delete(m.fail, "no lv")
			m.mu.Unlock()
		}
	}
	if res := f.reconcile(); res.failed || times != 2 {
		t.Fatalf("%+v after %d rescans: %s", res, times, describe(&f.server.object().Status))
	}

	f = newFixture(t, dws.TypeXFS)
	f.machine.fail["no lv"] = errors.New("yes")
	f.reconcile()
	st := f.server.object().Status
	if st.Error == nil || st.Error.Severity != dws.Major || !strings.Contains(st.Error.DebugMessage, "unable to activate block device: could not find logical volume "+testVG+"/"+testLV) ||
		!strings.Contains(st.Error.DebugMessage, "3 rescans") {
		t.Fatalf("status %s", describe(&st))
	}

	f = newFixture(t, dws.TypeXFS)
	f.machine.fail["no lv"], f.machine.fail["namespaces"] = errors.New("yes"), errors.New("yes")
	f.reconcile()
	if st := f.server.object().Status; !strings.Contains(st.Error.DebugMessage, "missing after a rescan: nqn.2014-08.org.example:disk0 namespace 12") {
		t.Fatalf("status %s", describe(&st))
	}
}

// A volume in use is reported with its holders, which are logged once. Other failures
// start no search.
func TestDeactivationNamesTheHolder(t *testing.T) {
	inUse := &node.CommandError{Line: "lvchange --activate n", Stderr: "  Logical volume vg/lv contains a filesystem in use.\n", Err: node.ExitStatus(5)}
	holder := node.Holder{PID: 4242, UID: 1001, Command: "vim", Kind: "cwd", Path: "/src", Namespace: "4026532001", Unit: "session-3.scope"}
	for name, tt := range map[string]struct {
		fails   error
		holders []node.Holder
		broken  error
		want    string
		logged  int
	}{
		"holder":         {inUse, []node.Holder{holder}, nil, "in use by " + holder.String(), 1},
		"no process":     {inUse, nil, nil, "no process was found that uses it", 0},
		"no search":      {inUse, nil, errors.New("no /proc"), "could not determine what uses it: no /proc", 0},
		"another reason": {&node.CommandError{Line: "lvchange", Stderr: "  Volume group is exported", Err: node.ExitStatus(5)}, []node.Holder{holder}, nil, "exported", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newMounted(t, dws.TypeXFS)
			f.machine.done()
			f.machine.fail["lvchange"], f.machine.deviceHolders = tt.fails, tt.holders
			if tt.broken != nil {
				f.machine.fail["device holders"] = tt.broken
			}
			var out bytes.Buffer
			f.rec.log = slog.New(slog.NewTextHandler(&out, nil))
			f.want(dws.Unmounted)
			for range 2 {
				f.reconcile()
				st := f.server.object().Status
				if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "unable to deactivate block device") || !strings.Contains(st.Error.DebugMessage, tt.want) {
					t.Fatalf("status %s", describe(&st))
				}
			}
			if got := strings.Count(out.String(), "device is in use"); got != tt.logged {
				t.Errorf("logged %d times, want %d:\n%s", got, tt.logged, &out)
			}
			searched := slices.Contains(f.machine.done(), "holders of 253:7")
			if searched != node.IsInUse(tt.fails) {
				t.Errorf("searched %t", searched)
			}
			delete(f.machine.fail, "lvchange")
			f.reconcile()
			if st := f.server.object().Status; st.Error != nil || !st.Mounts[0].Ready {
				t.Errorf("status %s", describe(&st))
			}
		})
	}
}
