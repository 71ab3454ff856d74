package offload

import (
	"context"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// The process's first thread keeps its identity: the kernel judges the whole
// process by it, and goroutines that change theirs must not run on it.
func init() { runtime.LockOSThread() }

// caller is a user, as the kernel names the one who connects.
type caller struct {
	uid, gid uint32
	groups   []uint32
}

var (
	root  = caller{}
	alice = caller{uid: 1001, gid: 1001} // whose workflow it is
	eve   = caller{uid: 1002, gid: 1002}
)

// dial connects as the user: identities are those of the thread that connects,
// unix(7). The thread ends with its goroutine.
func (c caller) dial(path string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and is never unlocked
		if err := c.become(); err != nil {
			done <- result{err: err}
			return
		}
		conn, err := net.Dial("unix", path)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// become changes this thread alone, which the functions of package syscall do
// not.
func (c caller) become() error {
	if c.uid == 0 && c.gid == 0 && len(c.groups) == 0 {
		return nil
	}
	groups := append([]uint32{c.gid}, c.groups...)
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0]))},
		{unix.SYS_SETRESGID, uintptr(c.gid), uintptr(c.gid), uintptr(c.gid)},
		{unix.SYS_SETRESUID, uintptr(c.uid), uintptr(c.uid), uintptr(c.uid)},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return os.NewSyscallError("become another user", errno)
		}
	}
	runtime.KeepAlive(groups)
	return nil
}

// connect returns a channel to the scene's socket.
func (s *env) connect(c caller) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(_ context.Context, path string) (net.Conn, error) { return c.dial(path) }))
	s.must(err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// as is a client of version 1, as2 one of version 2.
func (s *env) as(c caller) pb.DataMoverClient   { return pb.NewDataMoverClient(s.connect(c)) }
func (s *env) as2(c caller) pb2.DataMoverClient { return pb2.NewDataMoverClient(s.connect(c)) }
