package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal returns both ends of a new pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// Colours are for a terminal that wants them.
func TestColours(t *testing.T) {
	for _, tt := range []struct {
		verb    string
		environ []string
		want    string
	}{
		{"start", nil, "Starting The Thing:\t\t\t\t\t[\x1b[32m  OK  \x1b[0m]\r\n"},
		{"stop", []string{"TERM=xterm", "NO_COLOR="}, "Stopping The Thing:\t\t\t\t\t[\x1b[31mFAILED\x1b[0m]\r\n"},
		{"start", []string{"NO_COLOR=1"}, "Starting The Thing:\t\t\t\t\t[  OK  ]\r\n"},
		{"stop", []string{"TERM=dumb"}, "Stopping The Thing:\t\t\t\t\t[FAILED]\r\n"},
	} {
		n := newNode(t)
		n.write("usr/lib/systemd/system/thing.service", serviceText)
		master, slave := terminal(t)
		n.Do(context.Background(), tt.verb, nil, tt.environ, slave, slave)
		if err := master.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 4096)
		read, err := master.Read(data)
		if have := string(data[:read]); err != nil || !strings.HasPrefix(have, tt.want) {
			t.Errorf("%s, %q: %q, %v", tt.verb, tt.environ, have, err)
		}
	}
}

// An answer that cannot be written is a failure.
func TestWriteFails(t *testing.T) {
	n := newNode(t)
	n.write("usr/lib/systemd/system/thing.service", serviceText)
	read, write := io.Pipe()
	read.Close()
	if code := n.Do(context.Background(), "status", nil, nil, write, new(bytes.Buffer)); code != 1 {
		t.Errorf("code %d", code)
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{"": "", " a\n": "a", "a\nb\n": "a; b", "\x1b[31m\x07": "?[31m?", "ä\u0085b": "ä?b", "a\tb": "a?b"} {
		if have := plain(text); have != want {
			t.Errorf("%q became %q, want %q", text, have, want)
		}
	}
}
