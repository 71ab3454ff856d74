// Command agent runs in a machine of a test. It runs scripts that it receives over a port of a
// virtual machine or a socket of a container, and forwards connections to the host.
//
//	agent serve PATH             PATH is a character device, or a socket to create
//	agent forward LISTEN TARGET  LISTEN and TARGET are TCP addresses
//
// It must not depend on what is tested.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		if strings.HasPrefix(args[1], "/dev/") {
			return servePort(args[1])
		}
		return serveSocket(args[1])
	case len(args) == 3 && args[0] == "forward":
		return forward(args[1], args[2])
	}
	return errors.New("usage: agent serve PATH | agent forward LISTEN TARGET")
}

// servePort serves a character device. It waits until udev has created it.
func servePort(path string) error {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			return serve(port{os.NewFile(uintptr(fd), path)})
		}
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("open %s: %w", path, err)
		}
		time.Sleep(50 * time.Millisecond) // until udev has created it
	}
}

// port is a virtio port. Reading it returns EOF while no process is connected on the side of
// the host; Read then retries.
type port struct{ *os.File }

func (p port) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(50 * time.Millisecond) // poll(2) reports a port without a peer as ready
	}
}

func serveSocket(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_ = serve(conn)
		}()
	}
}

// forward forwards connections, so that a guest reaches the API server of the host at the
// loopback address in the certificate of the server.
func forward(listen, target string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go pass(conn, target)
	}
}

func pass(from net.Conn, target string) {
	defer from.Close()
	to, err := net.Dial("tcp", target)
	if err != nil {
		return // the connection of the client breaks, as if the host were down
	}
	defer to.Close()
	done := make(chan struct{}, 2)
	for _, c := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() {
			_, _ = io.Copy(c[0], c[1])
			if half, ok := c[0].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}
