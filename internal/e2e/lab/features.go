package lab

import (
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Features says what this machine lets the laboratory do.
type Features struct {
	Private       bool // in namespaces of our own; nothing works without
	UserNamespace bool // without privileges: memory file systems stand in for devices
	Loop          bool // loop devices can be attached
	XFS           bool // a real xfs can be made and mounted
	OwnDev        bool // /dev is ours: nodes may come and go in it

	// Why is a sentence for people about what is missing; empty when nothing is.
	Why string
}

// Full tells whether real file systems on real block devices are possible.
func (f Features) Full() bool { return f.Private && f.Loop && f.XFS }

// look finds the features from inside.
func look() Features {
	f := Features{Private: true, UserNamespace: os.Getenv(userVar) != "", OwnDev: os.Getenv(devVar) != ""}
	var missing []string
	lack := func(text string) { missing = append(missing, text) }
	if f.UserNamespace {
		lack("there is no root, so memory file systems stand in for block devices")
	} else if fd, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		lack("there is no loop device: /dev/loop-control: " + err.Error())
	} else {
		_ = unix.Close(fd)
		f.Loop = true
	}
	known, _ := os.ReadFile("/proc/filesystems")
	_, err := exec.LookPath("mkfs.xfs")
	switch {
	case f.UserNamespace:
	case err != nil:
		lack("there is no mkfs.xfs (package xfsprogs)")
	case !strings.Contains(string(known), "\txfs\n"):
		lack("the kernel knows no xfs (modprobe xfs)")
	default:
		f.XFS = f.Loop
	}
	f.Why = strings.Join(missing, "; ")
	return f
}
