package unixsocket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// lockTurns: each is the end of one holder between our open and our lock.
const lockTurns = 100

// errLocked: another process holds the lock.
var errLocked = errors.New("locked by another process")

// lock takes the exclusive right to the socket path, for as long as this
// process lives or until unlock. The file is removed by unlock, so a lock counts
// only if the locked file is still the one at the path.
func lock(path string) (*os.File, error) {
	for range lockTurns {
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
	return nil, fmt.Errorf("lock file %s: removed %d times while it was being locked; is something starting and stopping all the time?", path, lockTurns)
}

// tryLock reports neither lock nor error when the former holder has just
// removed the file: then there is a new one to try.
func tryLock(f *os.File, path string) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	// In a directory like /tmp it may be somebody's who wants to keep us out.
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
