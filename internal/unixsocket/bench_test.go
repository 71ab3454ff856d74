package unixsocket

import (
	"net"
	"testing"
)

// BenchmarkAccept measures connect, accept with peer credentials, and close.
func BenchmarkAccept(b *testing.B) {
	l := listen(b, Options{Limiter: NewLimiter(LimiterOptions{User: Quota{Slots: 9}, Root: Quota{Slots: 9}})})
	b.ReportAllocs()
	for b.Loop() {
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		client.Close()
	}
}

// BenchmarkAcceptBare is the same without this package, for comparison.
func BenchmarkAcceptBare(b *testing.B) {
	l := listen(b, Options{})
	b.ReportAllocs()
	for b.Loop() {
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		c, err := l.ul.Accept()
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		client.Close()
	}
}

func BenchmarkPeerOf(b *testing.B) {
	l := listen(b, Options{})
	dial(b, l)
	c := accept(b, l).Conn
	b.ReportAllocs()
	for b.Loop() {
		if _, err := PeerOf(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLimiter(b *testing.B) {
	l := NewLimiter(LimiterOptions{User: Quota{Slots: 10, Rate: 1e9, Burst: 10}})
	b.ReportAllocs()
	for b.Loop() {
		release, err := l.Acquire(7)
		if err != nil {
			b.Fatal(err)
		}
		_ = l.Allow(7)
		release()
	}
}

func BenchmarkIdle(b *testing.B) {
	i := NewIdle(1<<40, func() {})
	defer i.Stop()
	b.ReportAllocs()
	for b.Loop() {
		i.Enter()
		i.Leave()
	}
}
