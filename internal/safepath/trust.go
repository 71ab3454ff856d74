// Package safepath decides which paths are safe: those that only trusted users
// can change, and those on which a node may mount.
//
// Root and the user of this process are trusted. All other users are assumed to be
// hostile: they may own a directory of the path, replace its entries between two system
// calls, or create symlinks.
//
// The package does not depend on the purpose of a path, on mounts, or on settings.
package safepath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrSymlink reports a component of a path that is a symlink.
	ErrSymlink = errors.New("is a symlink")
	// ErrUnsafe reports a component of a path that users other than root and the user of
	// this process could replace while it is used.
	ErrUnsafe = errors.New("can be changed by users other than root")
	// ErrBadPath reports a text that is not a valid path of a mount target.
	ErrBadPath = errors.New("not a valid path")
)

// Error reports a problem with one component of a path. It wraps ErrSymlink, ErrUnsafe or
// unix.ENOTDIR.
type Error struct {
	Path  string // of the component
	Entry Entry  // what was found there
	err   error
	more  string
}

func (e *Error) Error() string { return e.Path + ": " + e.err.Error() + e.more }
func (e *Error) Unwrap() error { return e.err }

// Entry contains what determines which users can change a file or the entries of a
// directory.
type Entry struct {
	Mode     uint32 // type and permissions, as in inode(7)
	UID, GID uint32
}

// EntryOf returns the entry that info describes.
func EntryOf(info fs.FileInfo) Entry {
	st := info.Sys().(*syscall.Stat_t)
	return Entry{st.Mode, st.Uid, st.Gid}
}

func entryOf(st *unix.Stat_t) Entry { return Entry{st.Mode, st.Uid, st.Gid} }

// Trusted reports whether root or the user of this process owns the entry.
func (e Entry) Trusted() bool { return e.UID == 0 || int(e.UID) == os.Geteuid() }

// Writers selects the users other than the owner whose write permission is considered.
type Writers int

const (
	Everybody     Writers = iota // mode o+w
	Groups                       // mode o+w or g+w
	ForeignGroups                // mode o+w, or g+w for another group than root
)

// WritableBy reports whether users in w may write to the file or directory.
func (e Entry) WritableBy(w Writers) bool {
	group := w == Groups || w == ForeignGroups && e.GID != 0
	return e.Mode&unix.S_IWOTH != 0 || group && e.Mode&unix.S_IWGRP != 0
}

// ReplaceableBy reports whether users in w may rename or remove entries of the directory
// that they do not own. In a sticky directory they may not.
func (e Entry) ReplaceableBy(w Writers) bool {
	return e.WritableBy(w) && e.Mode&unix.S_ISVTX == 0
}

// CheckPrivate returns an error unless dir is a directory that the user of this process
// owns and that no other user can write to. A symlink is an error.
func CheckPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	switch e := EntryOf(info); {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link", dir)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case int(e.UID) != os.Geteuid():
		return fmt.Errorf("%s is owned by uid %d, not by this daemon's uid %d", dir, e.UID, os.Geteuid())
	case e.WritableBy(Groups):
		return fmt.Errorf("%s is writable by other users (mode %04o)", dir, info.Mode().Perm())
	}
	return nil
}

// CheckParent returns an error if other users can rename or remove entries of the
// directory that they do not own.
func CheckParent(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if EntryOf(info).ReplaceableBy(Groups) {
		return fmt.Errorf("%s is writable by other users and not sticky (mode %04o), so they can replace its entries", dir, info.Mode().Perm())
	}
	return nil
}

// CheckFile returns an error unless info describes a regular file that a trusted user
// owns and that no other user can write to. path is for messages.
func CheckFile(path string, info fs.FileInfo) error {
	switch e := EntryOf(info); {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case !e.Trusted():
		return fmt.Errorf("%s is owned by another user (uid %d)", path, e.UID)
	case e.WritableBy(Groups):
		return fmt.Errorf("%s is writable by other users (mode %04o)", path, info.Mode().Perm())
	}
	return nil
}
