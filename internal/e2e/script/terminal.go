package script

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudo-terminal that records its output.
type Terminal struct {
	Keyboard *os.File // what the user types
	Screen   *os.File // the terminal of the program

	mu    sync.Mutex
	shown []byte
	ended chan struct{}
}

// OpenTerminal returns a new pseudo-terminal of this size, which may be 0. It is closed
// at the end of the test.
func OpenTerminal(t testing.TB, columns, rows uint16) *Terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal("cannot open a pseudo-terminal: ", err)
	}
	p := &Terminal{Keyboard: os.NewFile(uintptr(fd), "ptmx"), ended: make(chan struct{})}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0), unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
	if err == nil {
		p.Screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		p.Keyboard.Close()
		t.Fatal(err)
	}
	go p.read()
	t.Cleanup(func() {
		p.Screen.Close()
		p.Keyboard.Close()
		<-p.ended
	})
	return p
}

func (p *Terminal) read() {
	defer close(p.ended)
	buf := make([]byte, 4096)
	for {
		n, err := p.Keyboard.Read(buf)
		p.mu.Lock()
		p.shown = append(p.shown, buf[:n]...)
		p.mu.Unlock()
		if err != nil { // EIO: no process has the terminal open
			return
		}
	}
}

// Shown returns the output so far.
func (p *Terminal) Shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.shown)
}

// Ended waits until no process has the terminal open, and returns the output. The caller
// must close Screen first.
func (p *Terminal) Ended() string {
	<-p.ended
	return p.Shown()
}
