package lab

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
						t.Errorf("the device is free: %v", err)
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
	if _, err := l.Busy("shouting", "/"); err == nil {
		t.Error("an unknown way was accepted")
	}
}
