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

// own is a socket in the file system that this process made.
type own struct {
	path string
	info fs.FileInfo // of the inode that we bound
	lock *os.File
}

// makeOwn makes the socket. No client can connect before its owner, group and mode
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

// permit follows no link: no other user can put one at our socket's path.
func (o *own) permit(mode fs.FileMode, gid int) error {
	if gid >= 0 {
		if err := os.Lchown(o.path, -1, gid); err != nil {
			return fmt.Errorf("give the socket to group %d: is this process a member of it? %w", gid, err)
		}
	}
	return os.Chmod(o.path, mode)
}

// remove removes our socket and the lock, and leaves alone what another process has
// put there since. The listener must still be open: while it is, the kernel cannot
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

// lockTries bounds how often lock starts again because the holder removed the file
// between our open and our lock.
const lockTries = 100

// errLocked: another process holds the lock.
var errLocked = errors.New("locked by another process")

// lock takes the exclusive right to the socket path, for as long as this
// process lives or until unlock. The file is removed by unlock, so a lock counts
// only if the locked file is still the one at the path.
func lock(path string) (*os.File, error) {
	for range lockTries {
		// Not followed when it is a link, not waited for when it is a pipe.
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
	return nil, fmt.Errorf("lock file %s: removed %d times while it was being locked; is something starting and stopping all the time?", path, lockTries)
}

// tryLock reports neither lock nor error when the former holder has just
// removed the file: then there is a new one to try.
func tryLock(f *os.File, path string) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	// In a directory like /tmp it may belong to a user who wants to block us.
	if owner := safepath.EntryOf(info); !info.Mode().IsRegular() || !owner.Trusted() {
		return false, fmt.Errorf("lock file %s is not a file of ours (%v, uid %d): remove it", path, info.Mode(), owner.UID)
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

// unlock removes the file while it is still locked.
func unlock(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
}

// ErrInUse is in the errors of Listen when a live process has the socket.
var ErrInUse = errors.New("another process listens there")

// removeStale makes the path free: there may be nothing, or a socket that
// no process listens on any more. The caller holds the lock.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is %s at %s, which is left alone: move it away, or choose another path", kind(info.Mode()), path)
	}
	if err := checkDead(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket that a former process left: %w", err)
	}
	return nil
}

// checkDead connects, the only way to learn whether a process listens. It never
// waits: a full backlog is an answer, too.
func checkDead(path string) error {
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
		return fmt.Errorf("%w%s: stop it first, or choose another path", ErrInUse, who)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPROTOTYPE): // backlog full; bound to another type of socket
		return fmt.Errorf("%w: stop it first, or choose another path", ErrInUse)
	default: // we cannot tell, so it may be alive
		return fmt.Errorf("is the socket at %s alive? %w", path, os.NewSyscallError("connect", err))
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

// resolve returns the path with every symbolic link in its directory replaced. It
// fails if users other than root and our own could change where the path leads, now
// or while we run. The last component is not looked at.
func resolve(path string) (string, error) {
	if path == "" || path[0] != '/' || strings.IndexByte(path, 0) >= 0 {
		return "", fmt.Errorf("socket path %q is not an absolute path of a file", path)
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
		return "", fmt.Errorf("socket path %s has %d bytes, the kernel takes %d: choose a shorter one", resolved, len(resolved), maxSocketPath)
	}
	return resolved, nil
}

// explain words what is wrong with the directory of a socket.
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
		return fmt.Errorf("%s is a symbolic link of uid %d, who could point it elsewhere: use a path without it", bad.Path, bad.Entry.UID)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s is not a directory", bad.Path)
	case !bad.Entry.Trusted():
		return fmt.Errorf("directory %s belongs to uid %d, who could replace the socket: it must belong to root or uid %d", bad.Path, bad.Entry.UID, os.Geteuid())
	default:
		return fmt.Errorf("directory %s has mode %04o, so that others could replace the socket: chmod go-w %[1]s", bad.Path, mode)
	}
}
