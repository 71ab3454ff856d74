package lab

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DialAs connects to a Unix socket as another user with these groups: peer credentials are the
// effective IDs of the thread that calls connect(2).
func DialAs(socket string, uid, gid int, groups ...int) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := connectAs(fd, socket, uid, append([]int{gid}, groups...)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect as %d: %w", uid, err)
	}
	f := os.NewFile(uintptr(fd), socket)
	defer f.Close()
	return net.FileConn(f)
}

func connectAs(fd int, socket string, uid int, groups []int) error {
	before, err := unix.Getgroups()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	err = becomeOnThread(uid, groups[0], groups)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	}
	if back := becomeOnThread(0, 0, before); back != nil {
		return back // the thread exits with its goroutine, because it stays locked
	}
	runtime.UnlockOSThread()
	return err
}

// becomeOnThread changes the effective IDs and the groups of this thread only, unlike the functions of
// package syscall. Only root can change the groups.
func becomeOnThread(uid, gid int, groups []int) error {
	set := make([]uint32, 0, len(groups)+1)
	for _, g := range groups {
		set = append(set, uint32(g))
	}
	count, keep := len(set), ^uintptr(0)
	set = append(set, 0) // so that there is an address
	setgroups := [4]uintptr{unix.SYS_SETGROUPS, uintptr(count), uintptr(unsafe.Pointer(&set[0])), 0}
	setgid := [4]uintptr{unix.SYS_SETRESGID, keep, uintptr(gid), keep}
	setuid := [4]uintptr{unix.SYS_SETRESUID, keep, uintptr(uid), keep}
	calls := [][4]uintptr{setgroups, setgid, setuid}
	if uid == 0 {
		calls = [][4]uintptr{setuid, setgid, setgroups}
	}
	for _, call := range calls {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return os.NewSyscallError("become another user", errno)
		}
	}
	runtime.KeepAlive(set)
	return nil
}
