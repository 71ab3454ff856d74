package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrInUse is in the errors of Listen when a live process has the socket.
var ErrInUse = errors.New("another process listens there")

// removeStale makes the path free: there may be nothing, or a socket that
// nobody listens on any more. The caller holds the lock.
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

// checkDead connects, the only way to learn whether somebody listens. It never
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
		// Of a listening socket the kernel keeps who made it listen.
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
