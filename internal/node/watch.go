package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// errTooLate is returned by waitFor when the limit is over.
var errTooLate = errors.New("not in time")

// fallbackPoll is used only when the kernel refuses inotify (too many watchers).
const fallbackPoll = 50 * time.Millisecond

const watchMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// waitFor returns nil as soon as done says so, errTooLate after limit, or the cause
// of ctx's end. It sleeps until something appears in one of the directories that
// places names. Those are asked for anew before each look, since the directory to
// watch may itself appear late. A failure of done ends the wait.
func (n *Node) waitFor(ctx context.Context, limit time.Duration, places func() []string, done func() (bool, error)) error {
	if ok, err := done(); ok || err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		n.log().Warn("no inotify; looking for devices every 50 ms", "error", err, "hint", "raise fs.inotify.max_user_instances")
		return pollFor(ctx, deadline, done)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	// The kernel makes us wait some milliseconds for the end of an inotify
	// instance: the caller, who has a mount to make, does not.
	defer func() { go f.Close() }()
	f.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		// Look only when the watches are where they belong, or what appears in
		// between is missed: a directory on the way, or the device itself.
		for now := places(); ; {
			for _, dir := range now {
				unix.InotifyAddWatch(fd, dir, watchMask) // gone again: the next round sees it
			}
			before := now
			if now = places(); slices.Equal(now, before) {
				break
			}
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
		if _, err := f.Read(buf); err != nil {
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, os.ErrDeadlineExceeded):
				return errTooLate
			}
			return err
		}
	}
}

func pollFor(ctx context.Context, deadline time.Time, done func() (bool, error)) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errTooLate
		}
		t := time.NewTimer(min(left, fallbackPoll))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
}

// nearest returns the deepest directory above path that exists.
func nearest(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == "/" || dir == "." {
			return dir
		}
	}
}
