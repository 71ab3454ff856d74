package lab

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func TestVolume(t *testing.T) {
	l := newLab(t)
	v := l.mustVolume(t, "vg", "lv", VolumeOptions{Shared: true, NQN: "nqn.x", NSID: 4})
	if _, err := l.AddVolume("vg", "lv", VolumeOptions{Raw: true}); err == nil {
		t.Error("added the same volume twice")
	}
	if err := l.Tool("lvchange", "--activate", "ys", "vg/lv"); err == nil {
		t.Error("activated without a lockspace")
	}
	for _, args := range [][]string{{"vgchange", "--lock-start", "vg"}, {"lvchange", "--activate", "ys", "vg/lv"}} {
		if err := l.Tool(args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(v.Node, &st); err != nil {
		t.Fatal(err)
	}
	if l.Features.Loop && (st.Mode&unix.S_IFMT != unix.S_IFBLK || unix.Major(st.Rdev) != 7 || int(unix.Minor(st.Rdev)) != v.Loop) {
		t.Errorf("the node is not block device 7:%d: %+v", v.Loop, st)
	}
	left, _ := l.Leftovers()
	if want := []string{"active volume vg/lv", "lockspace of vg", "node " + v.Node}; !slices.Equal(left, want) {
		t.Errorf("%q, want %q", left, want)
	}
	if active, err := v.Active(); !active || err != nil {
		t.Error("not active", err)
	}
	if locked, err := l.Locked("vg"); !locked || err != nil {
		t.Error("not locked", err)
	}
	if l.Features.Loop {
		if err := l.Reboot(); err != nil {
			t.Fatal(err)
		}
		noLeftovers(t, l)
	}
}

// lvchange does not wait for a late device node.
func TestLateNode(t *testing.T) {
	l := newLab(t)
	v := l.mustVolume(t, "late", "lv", VolumeOptions{Raw: true, NodeLate: 80 * time.Millisecond})
	start := time.Now()
	if err := l.Tool("lvchange", "--activate", "y", "late/lv"); err != nil {
		t.Fatal(err)
	}
	if exists(v.Node) && time.Since(start) < 80*time.Millisecond {
		t.Error("the node is not late")
	}
	wait.Until(t, "the device node", func() bool { return exists(v.Node) })
	if time.Since(start) < 80*time.Millisecond {
		t.Error("the node appeared too early")
	}
	if _, err := os.Stat(v.Node); err != nil {
		t.Error(err)
	}
}

func TestOnlyOneLab(t *testing.T) {
	l := newLab(t)
	if other, err := New(""); err == nil {
		other.Close()
		t.Error("created a second lab")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error("Close twice:", err)
	}
	if other, err := New(t.TempDir() + "/a:b"); err == nil {
		other.Close()
		t.Error("accepted a directory name that overlay mounts do not support")
	}
	newLab(t)
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\134040`: `/a\040`, `/a\`: `/a\`, `/a\9`: `/a\9`, `/\011x`: "/\tx"} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestBusy(t *testing.T) {
	l := newLab(t)
	v := l.mustVolume(t, "busy", "lv", VolumeOptions{Active: true})
	for _, kind := range []string{HoldCWD, HoldOpen, HoldMmap, HoldNested, HoldNamespace} {
		t.Run(kind, func(t *testing.T) {
			run(t, "mount", "-t", "xfs", v.Node, l.MountBase)
			h, err := l.Busy(kind, l.MountBase)
			if err != nil {
				t.Fatal(err)
			}
			err = unix.Unmount(l.MountBase, 0)
			if kind == HoldNamespace {
				if err != nil {
					t.Fatal(err)
				}
				if l.Features.Loop {
					if err := l.Tool("lvchange", "-an", "busy/lv"); err == nil || !strings.Contains(err.Error(), "in use") {
						t.Errorf("the device is not in use: %v", err)
					}
				}
			} else if !errors.Is(err, unix.EBUSY) {
				t.Errorf("unmount: %v, want EBUSY", err)
			}
			if h.PID != 0 {
				if _, err := os.Stat(l.MountBase); err != nil {
					t.Error(err)
				}
			}
			if err := h.Release(); err != nil {
				t.Fatal(err)
			}
			if kind != HoldNamespace {
				if err := unix.Unmount(l.MountBase, 0); err != nil {
					t.Errorf("after the release: %v", err)
				}
			}
		})
	}
	if err := l.Tool("lvchange", "-an", "busy/lv"); err != nil {
		t.Error(err)
	}
	noLeftovers(t, l)
	if _, err := l.Busy("unknown", "/"); err == nil {
		t.Error("an unknown kind was accepted")
	}
}
