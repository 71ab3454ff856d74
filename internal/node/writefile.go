package node

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFileIn replaces the file name in the directory dir, which users may be
// able to write to: the new content goes to a fresh file that is made with
// O_EXCL and then renamed, so no link that somebody planted is followed, and
// readers see the old file or the new one. The file is 0644 and owned by uid
// and gid. dir itself is walked without following links.
func (n *Node) WriteFileIn(dir, name string, data []byte, uid, gid uint32) error {
	_, err := n.carryOut(request{Op: opWriteFile, Path: dir, Name: name, Data: data, UID: uid, GID: gid})
	return err
}

func (n *Node) writeFileIn(dir, name string, data []byte, uid, gid uint32) error {
	if name == "" || strings.ContainsRune(name, '/') {
		return fmt.Errorf("%q is not a file name", name)
	}
	// The directory is the root of a mount that users own, so unlike for a
	// mount target its own owner does not matter.
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	tmp := fmt.Sprintf("%s.%d.new", name, os.Getpid())
	// One that a crash left behind is ours or a trap; either way it goes.
	_ = unix.Unlinkat(fd, tmp, 0)
	out, err := unix.Openat(fd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make %s in %s: %w", tmp, dir, err)
	}
	f := os.NewFile(uintptr(out), tmp)
	_, err = f.Write(data)
	if err == nil {
		err = f.Chown(int(uid), int(gid))
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Renameat(fd, tmp, fd, name)
	}
	if err != nil {
		_ = unix.Unlinkat(fd, tmp, 0)
		return fmt.Errorf("cannot write %s in %s: %w", name, dir, err)
	}
	return nil
}
