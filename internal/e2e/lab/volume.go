package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
)

// VolumeOptions configure a volume. The zero value is a local, visible, inactive volume
// with an empty xfs.
type VolumeOptions struct {
	Raw    bool // no file system on it
	Shared bool // the group needs a started lockspace
	Active bool // activated

	Appears  time.Duration // the volume is invisible to LVM until then
	NodeLate time.Duration // the device node appears this long after the activation

	// NQN and NSID identify the NVMe namespace of the volume. With NeedsRescan,
	// namespace and volume are missing until RescanLate after a rescan.
	NQN         string
	NSID        int
	NeedsRescan bool
	RescanLate  time.Duration
}

// Volume is a logical volume of the lab.
type Volume struct {
	VG, LV string
	Node   string // path below /dev/mapper, exists while the volume is active
	Image  string // backing file; empty without loop devices
	Loop   int    // number of the loop device; -1: none

	lab *Lab
}

// DevicePath returns the path of the device mapper node of a volume. Hyphens in both
// names are doubled.
func DevicePath(vg, lv string) string {
	escape := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return "/dev/mapper/" + escape(vg) + "-" + escape(lv)
}

// AddVolume creates a volume. Volumes of the same group must have the same value of
// Shared.
func (l *Lab) AddVolume(vg, lv string, opts VolumeOptions) (*Volume, error) {
	v := &Volume{VG: vg, LV: lv, Node: DevicePath(vg, lv), Loop: -1, lab: l}
	rec := &record.Volume{VG: vg, LV: lv, Shared: opts.Shared, Node: v.Node, Late: opts.NodeLate, NQN: opts.NQN, NSID: opts.NSID}
	if opts.Appears > 0 {
		rec.Appears = time.Now().Add(opts.Appears)
	}
	switch {
	case l.Features.Loop:
		image, err := l.newImage(fmt.Sprintf("volume-%d.img", time.Now().UnixNano()), opts.Raw)
		if err != nil {
			return nil, err
		}
		loop, err := l.attach(image)
		if err != nil {
			return nil, errors.Join(err, os.Remove(image))
		}
		l.onClose(func() error { return errors.Join(loop.detach(), os.Remove(image)) })
		v.Image, v.Loop = image, loop.number
		rec.Major, rec.Minor = 7, uint32(loop.number)
	case blockDevice("/dev") != "":
		rec.Bind = blockDevice("/dev") // never opened; it only has to be a block device
	default:
		rec.Plain = true
	}
	err := l.state.Update(func(s *record.State) error {
		for _, o := range s.Volumes {
			if o.VG == vg && o.LV == lv {
				return fmt.Errorf("volume %s/%s already exists", vg, lv)
			}
		}
		s.Volumes = append(s.Volumes, rec)
		if opts.NQN != "" {
			s.Namespaces = append(s.Namespaces, &record.Namespace{
				NQN: opts.NQN, NSID: opts.NSID, NeedsRescan: opts.NeedsRescan, Late: opts.RescanLate,
			})
		}
		return nil
	})
	if err == nil && opts.Active {
		err = l.Tool("lvchange", "--activate", "y", vg+"/"+lv)
	}
	return v, err
}

// Active reports whether the volume is active.
func (v *Volume) Active() (bool, error) {
	s, err := v.lab.state.Load()
	if err != nil {
		return false, err
	}
	for _, r := range s.Volumes {
		if r.VG == v.VG && r.LV == v.LV {
			return r.Active, nil
		}
	}
	return false, fmt.Errorf("no volume %s/%s", v.VG, v.LV)
}

// Hide makes the volume invisible to LVM, as if its storage had been lost, or visible again.
func (v *Volume) Hide(yes bool) error {
	return v.lab.state.Update(func(s *record.State) error {
		for _, r := range s.Volumes {
			if r.VG == v.VG && r.LV == v.LV {
				r.Appears = time.Time{}
				if yes {
					r.Appears = time.Now().Add(24 * time.Hour)
				}
				return nil
			}
		}
		return fmt.Errorf("no volume %s/%s", v.VG, v.LV)
	})
}

// Locked reports whether the lockspace of a group is started.
func (l *Lab) Locked(vg string) (bool, error) {
	s, err := l.state.Load()
	if err != nil {
		return false, err
	}
	for _, v := range s.Locks {
		if v == vg {
			return true, nil
		}
	}
	return false, nil
}

// NVMeLayout sets the output format of nvme list to that of nvme-cli version 1 or 2. The
// default is 2.
func (l *Lab) NVMeLayout(version int) error {
	return l.state.Update(func(s *record.State) error { s.NVMeLayout = version; return nil })
}

// ShowSource makes mount helpers mount the source shown instead of asked, as Lustre does
// for servers with host names. An empty shown removes the entry.
func (l *Lab) ShowSource(asked, shown string) error {
	return l.state.Update(func(s *record.State) error {
		delete(s.Shown, asked)
		if shown == "" {
			return nil
		}
		if s.Shown == nil {
			s.Shown = record.Sources{}
		}
		s.Shown[asked] = shown
		return nil
	})
}

// Reboot simulates a reboot: it deactivates volumes, stops lockspaces and removes device
// nodes. There must be no mounts.
func (l *Lab) Reboot() error {
	return l.state.Update(func(s *record.State) error {
		s.Locks = nil
		for _, v := range s.Volumes {
			v.Active = false
		}
		nodes, err := filepath.Glob(filepath.Join(l.Mapper, "*"))
		for _, n := range nodes {
			err = errors.Join(err, os.Remove(n))
		}
		return err
	})
}

// blockDevice returns the path of the first block device in a directory, or "".
func blockDevice(dir string) string {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		// Not the type of the entry: it may be a file with a device mounted on it.
		if st, err := os.Lstat(path); err == nil && st.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
			return path
		}
	}
	return ""
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// imageSize is above the minimum of mkfs.xfs, 300 MB. The file is sparse.
const imageSize = 320 << 20

// loop is an attached loop device. The open file keeps it attached: the kernel detaches
// it when its last user closes it, so this process cannot leak it.
type loop struct {
	number int
	file   *os.File
	added  bool // the kernel created the device for us
}

// attach attaches an image to a free loop device.
func (l *Lab) attach(image string) (*loop, error) {
	img, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	known, _ := filepath.Glob("/sys/block/loop*")
	for range 20 { // other processes may take the same free device, or remove it
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		node := filepath.Join(l.path("nodes"), fmt.Sprintf("loop%d", n))
		if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && err != unix.EEXIST {
			return nil, fmt.Errorf("mknod %s: %w", node, err)
		}
		dev, err := os.OpenFile(node, os.O_RDWR, 0)
		if errors.Is(err, unix.ENXIO) {
			continue // removed by the process that had added it
		} else if err != nil {
			return nil, err
		}
		cfg := unix.LoopConfig{Fd: uint32(img.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(cfg.Info.File_name[:], image)
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &cfg)
		if err == nil {
			return &loop{number: n, file: dev, added: !hasName(known, n)}, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach loop%d: %w", n, err)
		}
	}
	return nil, errors.New("no free loop device after 20 attempts")
}

func hasName(paths []string, n int) bool {
	for _, p := range paths {
		if filepath.Base(p) == fmt.Sprintf("loop%d", n) {
			return true
		}
	}
	return false
}

func (d *loop) detach() error {
	err := unix.IoctlSetInt(int(d.file.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		err = nil
	}
	err = errors.Join(err, d.file.Close())
	if d.added {
		if control, e := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); e == nil {
			_ = unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_REMOVE, d.number) // another process may use it
			control.Close()
		}
	}
	return err
}

// newImage creates the file of a volume, with a new xfs or empty. A copied xfs would not
// do: the kernel refuses to mount a second file system with the same UUID.
func (l *Lab) newImage(name string, raw bool) (string, error) {
	path := l.path(name)
	if raw || !l.Features.XFS {
		return path, truncated(path, 16<<20)
	}
	// One at a time, because mkfs.xfs writes 64 MB, mostly zeros, which the copy turns
	// into holes.
	l.making.Lock()
	defer l.making.Unlock()
	full := path + ".full"
	if err := truncated(full, imageSize); err != nil {
		return "", err
	}
	defer os.Remove(full)
	if out, err := exec.Command("mkfs.xfs", "-q", "-f", "-K", full).CombinedOutput(); err != nil {
		return "", fmt.Errorf("mkfs.xfs: %w: %s", err, out)
	}
	return path, copySparse(full, path)
}

func truncated(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// copySparse copies a file. Holes and blocks of zeros become holes.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := truncated(to, imageSize); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		at, err = unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		} else if err != nil {
			return err
		}
		n, err := in.ReadAt(buf, at)
		if n > 0 && string(buf[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		at += int64(n)
	}
}
