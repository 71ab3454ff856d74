package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// socketFile is a socket in the file system that this process has created.
type socketFile struct {
	path string
	info fs.FileInfo // of the inode that this process has bound
	lock *os.File
}

// createSocket creates the socket. It sets owner, group and mode before listen(2), so
// that no client can connect earlier.
func createSocket(path string, mode fs.FileMode, gid int) (*net.UnixListener, *socketFile, error) {
	f, err := lock(path + ".lock")
	if errors.Is(err, errLocked) {
		if alive := checkStale(path); alive != nil {
			return nil, nil, alive // has more details
		}
		return nil, nil, fmt.Errorf("%w, or is about to: %s.lock is locked", ErrInUse, path)
	} else if err != nil {
		return nil, nil, err
	}
	o := &socketFile{path: path, lock: f}
	l, err := o.listen(mode, gid)
	if err != nil {
		return nil, nil, errors.Join(err, o.remove())
	}
	return l, o, nil
}

func (o *socketFile) listen(mode fs.FileMode, gid int) (*net.UnixListener, error) {
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

// bind creates the file. Its mode is that of the descriptor without the bits of the
// umask: until permit, only this user can access it. umask(2) is not used, because it
// affects the whole process.
func (o *socketFile) bind(fd int) error {
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

// permit sets group and mode. It need not guard against symbolic links, because no other
// user can replace the socket.
func (o *socketFile) permit(mode fs.FileMode, gid int) error {
	if gid >= 0 {
		if err := os.Lchown(o.path, -1, gid); err != nil {
			return fmt.Errorf("change the group of the socket to %d, of which this process must be a member: %w", gid, err)
		}
	}
	return os.Chmod(o.path, mode)
}

// remove removes the socket and the lock. It does not remove a file that another process
// has put at the path. The listener must still be open, because the kernel can reuse the
// inode number after that.
func (o *socketFile) remove() error {
	var failed error
	if o.info != nil {
		now, err := os.Lstat(o.path)
		if err == nil && os.SameFile(o.info, now) && now.Mode().Type() == fs.ModeSocket {
			err = os.Remove(o.path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = fmt.Errorf("the socket was not removed: %w", err)
		}
	}
	return errors.Join(failed, unlock(o.lock))
}

// groupID returns the number of a group, -1 for "". It accepts numbers, because a static
// binary finds names in /etc/group only.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("group of the socket: %w; use the number of a group that is not in /etc/group", err)
	}
	return strconv.Atoi(g.Gid)
}

// lockTries limits how often lock retries because the holder removed the file between
// open and flock.
const lockTries = 100

var errLocked = errors.New("locked by another process")

// lock locks the socket path exclusively, until unlock or the exit of this process.
// unlock removes the file, so a lock is valid only if the locked file is still at the
// path.
func lock(path string) (*os.File, error) {
	for range lockTries {
		// O_NOFOLLOW: not through a symbolic link. O_NONBLOCK: no wait on a named pipe.
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock file: %w", err)
		}
		held, err := tryLock(f, path)
		if held {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("lock file %s: removed %d times while it was being locked; check whether another daemon is restarting repeatedly", path, lockTries)
}

// tryLock locks the file. It returns false and no error if the previous holder has
// removed the file in the meantime: the caller must open the path again.
func tryLock(f *os.File, path string) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	// In a directory like /tmp, another user may have created it to block the daemon.
	if owner := safepath.EntryOf(info); !info.Mode().IsRegular() || !owner.Trusted() {
		return false, fmt.Errorf("lock file %s is not a regular file of this user or root (%v, uid %d): remove it", path, info.Mode(), owner.UID)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, errLocked
	case errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("lock %s: %w", path, os.NewSyscallError("flock", err))
	}
	now, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(info, now), err
}

// unlock removes the file while it is still locked, then closes it.
func unlock(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
}

// ErrInUse is wrapped in errors of Listen if another process listens on the socket.
var ErrInUse = errors.New("another process listens on it")

// removeStale removes a socket on which no process listens. It returns an error
// if anything else is at the path. The caller holds the lock.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists at %s: move it away, or choose another path", kind(info.Mode()), path)
	}
	if err := checkStale(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket of an earlier process: %w", err)
	}
	return nil
}

// checkStale returns an error if a process listens on the socket. It connects, which is
// the only way to find out. It never waits: a full backlog also means that a process
// listens.
func checkStale(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil
	case err == nil:
		// For a listening socket the kernel keeps the process that called listen(2).
		who := ""
		if p, err := peerOfFD(fd); err == nil && p.PID > 0 {
			who = fmt.Sprintf(" (pid %d, uid %d)", p.PID, p.UID)
		}
		return fmt.Errorf("%w%s: stop that process, or choose another path", ErrInUse, who)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPROTOTYPE): // backlog full; bound to another type of socket
		return fmt.Errorf("%w: stop that process, or choose another path", ErrInUse)
	default: // unknown, so a process may be listening
		return fmt.Errorf("cannot determine whether a process listens on %s: %w", path, os.NewSyscallError("connect", err))
	}
}

func kind(m fs.FileMode) string {
	switch m.Type() {
	case 0:
		return "a file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a named pipe"
	}
	return "a device"
}

const maxSocketPath = 107 // bytes: sun_path without its final NUL, unix(7)

// resolve returns the path with all symbolic links in its directory resolved. It fails if
// users other than root and the current user could redirect the path. It does not check
// the last component.
func resolve(path string) (string, error) {
	if path == "" || path[0] != '/' || strings.IndexByte(path, 0) >= 0 {
		return "", fmt.Errorf("socket path %q is not an absolute path", path)
	}
	clean := filepath.Clean(path)
	if clean == "/" || strings.HasSuffix(path, "/") {
		return "", fmt.Errorf("socket path %q is a directory", path)
	}
	dir, err := safepath.Directory(filepath.Dir(clean))
	if err != nil {
		return "", fmt.Errorf("socket %s: %w", path, explain(err))
	}
	resolved := filepath.Join(dir, filepath.Base(clean))
	if len(resolved) > maxSocketPath {
		return "", fmt.Errorf("socket path %s has %d bytes, but the kernel allows %d: choose a shorter path", resolved, len(resolved), maxSocketPath)
	}
	return resolved, nil
}

// explain converts an error about the directory of a socket to a message with a next
// action.
func explain(err error) error {
	if missing, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("directory %s does not exist: create it, or set RuntimeDirectory= in the unit: %w", missing.Path, err)
	}
	bad, ok := errors.AsType[*safepath.Error](err)
	if !ok {
		return err
	}
	switch mode := bad.Entry.Mode & 0o777; {
	case errors.Is(err, safepath.ErrSymlink):
		return fmt.Errorf("%s is a symbolic link of uid %d, who could redirect it: use a path without it", bad.Path, bad.Entry.UID)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s is not a directory", bad.Path)
	case !bad.Entry.Trusted():
		return fmt.Errorf("directory %s belongs to uid %d, who could replace the socket: it must belong to root or uid %d", bad.Path, bad.Entry.UID, os.Geteuid())
	default:
		return fmt.Errorf("directory %s has mode %04o, which lets other users replace the socket: chmod go-w %[1]s", bad.Path, mode)
	}
}
