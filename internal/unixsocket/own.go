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

// makeOwn makes the socket. Nobody can connect before its owner, group and mode
// are right: those are set before listen(2).
func makeOwn(path string, mode fs.FileMode, gid int) (*net.UnixListener, *own, error) {
	f, err := lock(path + ".lock")
	if errors.Is(err, errLocked) {
		if alive := checkDead(path); alive != nil {
			return nil, nil, alive // says more
		}
		return nil, nil, fmt.Errorf("%w, or is about to: %s.lock is locked", ErrInUse, path)
	} else if err != nil {
		return nil, nil, err
	}
	o := &own{path: path, lock: f}
	l, err := o.listen(mode, gid)
	if err != nil {
		return nil, nil, errors.Join(err, o.remove())
	}
	return l, o, nil
}

func (o *own) listen(mode fs.FileMode, gid int) (*net.UnixListener, error) {
	if err := removeStale(o.path); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), o.path)
	defer f.Close() // the listener has its own descriptor
	if err := o.bind(fd); err != nil {
		return nil, err
	}
	if err := o.permit(mode, gid); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// bind makes the file. Its mode is the descriptor's less the umask: until permit
// it is ours alone. umask(2) itself would be the whole process's.
func (o *own) bind(fd int) error {
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: o.path}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	info, err := os.Lstat(o.path)
	if err != nil {
		return err
	}
	o.info = info
	return nil
}

// permit follows no link: nobody else can put one where our socket is.
func (o *own) permit(mode fs.FileMode, gid int) error {
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
