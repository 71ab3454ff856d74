package unixsocket

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// helperListen listens at SOCKET after a sign, says how that went, and closes
// at its end.
func helperListen() error {
	fmt.Println("ready")
	var sign [1]byte
	os.Stdin.Read(sign[:])
	l, err := Listen(Options{Path: os.Getenv("SOCKET"), Log: quiet})
	if err != nil {
		return err
	}
	fmt.Println("listening")
	proceed()
	return l.Close()
}

// Of many processes that start together exactly one gets the socket, whatever
// the last one left behind.
func TestOneOfManyProcesses(t *testing.T) {
	dir := directory(t)
	path := filepath.Join(dir, "s")
	for round := range 3 {
		var ps []*process
		for range 6 {
			ps = append(ps, start(t, "listen", 0, "SOCKET="+path))
		}
		for _, p := range ps {
			p.want("ready")
		}
		for _, p := range ps {
			p.in.Write([]byte("x"))
		}
		var winner *process
		for _, p := range ps {
			switch line := p.line(); {
			case line == "listening" && winner == nil:
				winner = p
			case line == "listening":
				t.Error("two processes listen")
			case !strings.Contains(line, ErrInUse.Error()):
				t.Errorf("got %q", line)
			}
		}
		if winner == nil {
			t.Fatal("nobody listens")
		}
		if round == 1 { // the next round finds a stale socket and lock file
			winner.kill()
			names(t, dir, "s", "s.lock")
			continue
		}
		winner.end()
		names(t, dir)
	}
}

// Both sides of the hand-over: a lock on a file that is no longer there is none.
func TestLockComesAndGoes(t *testing.T) {
	path := filepath.Join(directory(t), "l")
	held := make(chan struct{}, 1)
	done := make(chan error)
	for range 8 {
		go func() {
			for range 100 {
				f, err := lock(path)
				if err == errLocked {
					continue
				}
				if err != nil {
					done <- err
					return
				}
				select {
				case held <- struct{}{}:
				default:
					done <- fmt.Errorf("two holders")
					return
				}
				<-held
				if err := unlock(f); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestLockFileOfOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(string) error
		want string
	}{
		"link":      {func(p string) error { return os.Symlink("/etc/passwd", p) }, "too many levels"},
		"pipe":      {func(p string) error { return unix.Mkfifo(p, 0o600) }, "not a file of ours"},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, "is a directory"},
		"another user's": {func(p string) error {
			if os.Geteuid() != 0 {
				return os.Mkdir(p, 0o700) // cannot be made: any refusal will do
			}
			if err := os.WriteFile(p, nil, 0o666); err != nil {
				return err
			}
			return os.Chown(p, 4711, 4711)
		}, "lock file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(directory(t), "s")
			if err := tt.make(path + ".lock"); err != nil {
				t.Fatal(err)
			}
			_, err := Listen(Options{Path: path, Log: quiet})
			contains(t, err, tt.want)
			if _, err := os.Lstat(path + ".lock"); err != nil {
				t.Errorf("it was removed: %v", err)
			}
		})
	}
}

// The lock alone is enough: its holder may not have got as far as the socket.
func TestLockedWithoutSocket(t *testing.T) {
	dir := directory(t)
	f, err := lock(filepath.Join(dir, "s.lock"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Listen(Options{Path: filepath.Join(dir, "s"), Log: quiet})
	contains(t, err, ErrInUse.Error(), "s.lock is locked")
	names(t, dir, "s.lock")
	if err := unlock(f); err != nil {
		t.Fatal(err)
	}
}
