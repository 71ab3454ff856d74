package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A peer that vanishes without a word cannot be played on the loopback device,
// where the kernel of the peer goes on acknowledging. What notices it is the
// daemon's kernel, which must have been told to.
func guardedByKernel(s *env) {
	s.start()
	s.mounted()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.daemon.PID))
	if err != nil {
		s.t.Fatal(err)
	}
	process, err := unix.PidfdOpen(s.daemon.PID, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer unix.Close(process)
	seen := 0
	for _, path := range fds {
		if link, err := os.Readlink(path); err != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		var number int
		if _, err := fmt.Sscan(filepath.Base(path), &number); err != nil {
			s.t.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		defer unix.Close(fd)
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || kind == unix.AF_UNIX {
			continue
		}
		seen++
		for _, o := range []struct {
			name                 string
			level, option        int
			atLeast, atMost, got int
		}{
			{name: "SO_KEEPALIVE", level: unix.SOL_SOCKET, option: unix.SO_KEEPALIVE, atLeast: 1, atMost: 1},
			{name: "TCP_KEEPIDLE in s", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPIDLE, atLeast: 30, atMost: 120},
			{name: "TCP_USER_TIMEOUT in ms", level: unix.IPPROTO_TCP, option: unix.TCP_USER_TIMEOUT, atLeast: 10_000, atMost: 60_000},
		} {
			if o.got, err = unix.GetsockoptInt(fd, o.level, o.option); err != nil || o.got < o.atLeast || o.got > o.atMost {
				s.t.Errorf("%s is %d (%v), want %d to %d", o.name, o.got, err, o.atLeast, o.atMost)
			}
		}
	}
	if seen != 1 {
		s.t.Errorf("the daemon has %d connections, want 1", seen)
	}
}
