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

// connect opens n connections as a user. The peer credentials are the IDs of the thread,
// so a thread changes to the user and is then discarded.
func connect(uid, n int, socket string, each func(net.Conn) error) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread exits with the goroutine
		failed <- func() error {
			// Not the functions of package syscall, which change all threads.
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

// dialPatiently connects, and waits while the accept queue of the socket is full.
func dialPatiently(socket string) (c net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	full := wait.For(ctx, "space in the accept queue", func() (bool, error) {
		c, err = net.Dial("unix", socket)
		return !errors.Is(err, unix.EAGAIN), nil
	})
	return c, cmp.Or(full, err)
}

// dial returns a gRPC client that connects as a user.
func dial(uid int, socket string) (*grpc.ClientConn, pb.DataMoverClient, error) {
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10), // small, for a thousand clients
		grpc.WithContextDialer(func(_ context.Context, socket string) (c net.Conn, err error) {
			err = connect(uid, 1, socket, func(made net.Conn) error { c = made; return nil })
			return c, err
		}))
	if err != nil {
		return nil, nil, err
	}
	return conn, pb.NewDataMoverClient(conn), nil
}

// preface is the start of an HTTP/2 connection: the client preface, settings, and the
// acknowledgement of the server's settings (RFC 9113, 3.4 and 6.5).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x00\x04\x01\x00\x00\x00\x00"

// connections are idle connections of a user.
type connections []net.Conn

// idlers opens n HTTP/2 connections and leaves them idle. It returns the connections that
// the daemon has accepted.
func idlers(uid, n int, socket string) (held connections, err error) {
	var all connections
	err = connect(uid, n, socket, func(c net.Conn) error {
		all = append(all, c)
		_, _ = io.WriteString(c, preface) // fails if the connection is refused, as does the read below
		return nil
	})
	if err != nil {
		all.close()
		return nil, err
	}
	for _, c := range all {
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Read(make([]byte, 9)); err != nil { // the start of the server's settings
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
