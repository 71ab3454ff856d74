package terminal

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pty returns a new pseudo-terminal of this size, whatever the size is.
func pty(t *testing.T, columns, rows uint16) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal("no pseudo-terminal on this machine: ", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRedraws(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		columns, rows uint16
		term          string
		want          bool
	}{
		{80, 24, "xterm", true},
		{80, 24, "", true},
		{1, 1, "xterm", true},
		{80, 24, "dumb", false},
		{0, 0, "xterm", false},
		{80, 0, "xterm", false},
		{0, 24, "xterm", false},
	} {
		f := pty(t, tt.columns, tt.rows)
		if got, ok := Redraws(f, tt.term); ok != tt.want || ok && got != f {
			t.Errorf("%d×%d, TERM=%s: %v", tt.columns, tt.rows, tt.term, ok)
		}
	}
	if _, ok := Redraws(file, "xterm"); ok {
		t.Error("a file is a terminal")
	}
	if _, ok := Redraws(new(bytes.Buffer), "xterm"); ok {
		t.Error("a buffer is a terminal")
	}
}
