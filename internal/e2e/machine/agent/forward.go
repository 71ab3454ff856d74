package main

import (
	"io"
	"net"
)

// forward passes connections on. So a guest reaches the host's API server by
// the loopback address that the server's certificate names.
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
		return // the client sees a connection that breaks, as with a host that is away
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
