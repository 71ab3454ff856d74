package daemon

import (
	"os"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain also is the program that some tests start again in another mount
// namespace or with another standard error.
func TestMain(m *testing.M) {
	if helper := os.Getenv("DAEMON_TEST_HELPER"); helper != "" {
		os.Exit(helpers[helper]())
	}
	goleak.VerifyTestMain(m)
}

// peek looks at the next datagram without waiting for one.
func peek(fd int) (string, bool) {
	buf := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	return string(buf[:max(n, 0)]), err == nil
}
