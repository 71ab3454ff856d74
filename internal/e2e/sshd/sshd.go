// Package sshd prepares this machine for tests that run a real sshd.
package sshd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// directory is the privilege separation directory. sshd does not start as root without it,
// and its path is compiled in. Where systemd starts sshd, RuntimeDirectory= creates it.
const directory = "/run/sshd"

// Directory creates sshd's privilege separation directory if this process is root and the
// machine has none. Test binaries run side by side: the last one that uses the directory
// removes it again.
func Directory(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	release, err := hold(directory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}

// created marks a directory that hold has created.
const created = "created-by-test"

// hold creates dir if it does not exist. Each user has a shared lock on the directory;
// release removes the directory if hold created it and no other process has a lock.
func hold(dir string) (release func() error, err error) {
	for {
		switch err := os.Mkdir(dir, 0o755); {
		case err == nil:
			if err := os.WriteFile(filepath.Join(dir, created), nil, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in the meantime
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
			f.Close()
			return nil, err
		}
		locked, err1 := f.Stat()
		now, err2 := os.Stat(dir)
		if err1 != nil || err2 != nil || !os.SameFile(locked, now) {
			f.Close() // removed before the lock
			continue
		}
		return func() error {
			defer f.Close()
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
				return nil // another process uses it
			}
			if err := os.Remove(filepath.Join(dir, created)); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil // it belongs to this machine
				}
				return err
			}
			return os.Remove(dir)
		}, nil
	}
}
