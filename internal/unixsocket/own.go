package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// own is a socket in the file system that this process made.
type own struct {
	path string
	info fs.FileInfo // of the inode that we bound
	lock *os.File
}

// bind makes the socket. Nobody can connect before its owner, group and mode
// are right: those are set before listen(2).
func bind(path string, mode fs.FileMode, gid int) (l *net.UnixListener, o *own, err error) {
	lockFile, err := lock(path + ".lock")
	if errors.Is(err, errLocked) {
		if alive := checkDead(path); alive != nil {
			return nil, nil, alive // says more
		}
		return nil, nil, fmt.Errorf("%w, or is about to: %s.lock is locked", ErrInUse, path)
	} else if err != nil {
		return nil, nil, err
	}
	o = &own{path: path, lock: lockFile}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.remove())
		}
	}()
	if err := removeStale(path); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // the listener has its own descriptor
	if err := o.bind(fd, mode, gid); err != nil {
		return nil, nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, nil, os.NewSyscallError("listen", err)
	}
	nl, err := net.FileListener(f)
	if err != nil {
		return nil, nil, err
	}
	return nl.(*net.UnixListener), o, nil
}

func (o *own) bind(fd int, mode fs.FileMode, gid int) error {
	// The file takes the descriptor's mode less the umask: never more than the
	// owner's part of the final mode. umask(2) itself is the whole process's.
	if err := unix.Fchmod(fd, uint32(mode&0o600)); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: o.path}); err != nil {
		return fmt.Errorf("bind %s: %w", o.path, os.NewSyscallError("bind", err))
	}
	info, err := os.Lstat(o.path)
	if err != nil {
		return err
	}
	o.info = info
	if gid >= 0 {
		if err := os.Lchown(o.path, -1, gid); err != nil {
			return fmt.Errorf("give the socket to group %d: is this process a member of it? %w", gid, err)
		}
	}
	return os.Chmod(o.path, mode)
}

// remove takes our socket and the lock away, and leaves alone what somebody put
// there since. The listener must still be open: while it is, the kernel cannot
// give our inode's number to another file.
func (o *own) remove() error {
	var failed error
	if o.info != nil {
		now, err := os.Lstat(o.path)
		if err == nil && os.SameFile(o.info, now) && now.Mode().Type() == fs.ModeSocket {
			err = os.Remove(o.path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = fmt.Errorf("the socket stays behind: %w", err)
		}
	}
	return errors.Join(failed, unlock(o.lock))
}

// groupID gives -1 for no group. A static binary reads /etc/group alone, hence
// the number as a way out.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("group of the socket: %w; a group that is not in /etc/group must be given by its number", err)
	}
	return strconv.Atoi(g.Gid)
}
