package unixsocket

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connectWithGroups connects from a thread that is in these groups: the system
// call, unlike syscall.Setgroups, changes one thread. The thread ends with the
// goroutine because it stays locked to it.
func connectWithGroups(path string, groups []uint32) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			var first unsafe.Pointer
			if len(groups) > 0 {
				first = unsafe.Pointer(&groups[0])
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
				return errno
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}()
	}()
	return <-result
}
