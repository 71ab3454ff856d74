package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// connect makes n connections as a user. The kernel notes who connects by the
// ids of the thread, so a thread becomes the user and is thrown away.
func connect(uid, n int, socket string, each func(net.Conn) error) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		failed <- func() error {
			// Not the wrappers of package unix: those change all threads.
			for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
				if _, _, errno := unix.RawSyscall(call, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
					return fmt.Errorf("become user %d: %w", uid, errno)
				}
			}
			for range n {
				c, err := dialPatiently(socket)
				if err == nil {
					err = each(c)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	return <-failed
}

// dialPatiently waits while the kernel's queue of the socket is full.
func dialPatiently(socket string) (c net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	full := wait.For(ctx, "room in the socket's queue", func() (bool, error) {
		c, err = net.Dial("unix", socket)
		return !errors.Is(err, unix.EAGAIN), nil
	})
	return c, cmp.Or(full, err)
}

// dial returns a gRPC client of a user.
func dial(uid int, socket string) (*grpc.ClientConn, pb.DataMoverClient, error) {
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10), // there will be a thousand
		grpc.WithContextDialer(func(_ context.Context, socket string) (c net.Conn, err error) {
			err = connect(uid, 1, socket, func(made net.Conn) error { c = made; return nil })
			return c, err
		}))
	if err != nil {
		return nil, nil, err
	}
	return conn, pb.NewDataMoverClient(conn), nil
}

// preface is what an HTTP/2 client says first, with settings and the
// acknowledgement of the server's (RFC 9113, 3.4 and 6.5).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x00\x04\x01\x00\x00\x00\x00"

// connections are a user's who does nothing with them.
type connections []net.Conn

// idlers opens n connections that speak HTTP/2 and then say nothing. It returns
// those that the daemon has let in.
func idlers(uid, n int, socket string) (held connections, err error) {
	var all connections
	err = connect(uid, n, socket, func(c net.Conn) error {
		all = append(all, c)
		_, _ = io.WriteString(c, preface) // fails when it was turned away, as reading will
		return nil
	})
	if err != nil {
		all.close()
		return nil, err
	}
	for _, c := range all {
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Read(make([]byte, 9)); err != nil { // the beginning of the server's settings
			c.Close()
			continue
		}
		held = append(held, c)
	}
	return held, nil
}

func (l connections) close() {
	for _, c := range l {
		c.Close()
	}
}
