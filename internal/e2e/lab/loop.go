package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// imageSize is above the 300 MB that mkfs.xfs insists on; the file is sparse.
const imageSize = 320 << 20

// A loop is one attached loop device. The open file keeps it: the device is
// set to detach by itself when the last user goes, so that no end of this
// process can leak it.
type loop struct {
	number int
	file   *os.File
	added  bool // the kernel made the device for us
}

// attach gives an image a loop device.
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
	for range 20 { // others on this machine may take the same free device first, or remove it
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
			continue // it was free, and whoever had added it has removed it since
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
	return nil, errors.New("no free loop device after 20 tries")
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
			_ = unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_REMOVE, d.number) // another may use it by now
			control.Close()
		}
	}
	return err
}

// newImage makes a file for a volume, with an xfs of its own or empty. Copies
// of one xfs could not be mounted side by side: the kernel refuses a second
// file system with the same UUID.
func (l *Lab) newImage(name string, raw bool) (string, error) {
	path := l.path(name)
	if raw || !l.Features.XFS {
		return path, truncated(path, 16<<20)
	}
	// One at a time, because what mkfs.xfs writes is mostly zeros, 64 MB of
	// them, which only the copy does without.
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

// copySparse copies the data of a file and leaves its holes, and what is
// merely zero, as holes.
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
			return nil // nothing but a hole is left
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
