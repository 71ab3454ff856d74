package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwnSocketLifecycle(t *testing.T) {
	dir := directory(t)
	path := filepath.Join(dir, "s")
	l := listen(t, Options{Path: path})
	if l.Activated() || l.Addr().String() != path || l.Addr().Network() != "unix" {
		t.Errorf("activated %v at %v", l.Activated(), l.Addr())
	}
	names(t, dir, "s", "s.lock")
	c := dial(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	names(t, dir)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	c.Close()
	// The path is free for the next listener.
	listen(t, Options{Path: path})
}

func names(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("in the directory: %q, want %q", got, want)
	}
}

func TestModeAndGroup(t *testing.T) {
	// For any umask. No other goroutine creates files now.
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		old := unix.Umask(umask)
		for _, tt := range []struct {
			o    Options
			mode fs.FileMode
			gid  uint32
			root bool
		}{
			{Options{}, 0o666, uint32(os.Getegid()), false},
			{Options{Mode: 0o600}, 0o600, uint32(os.Getegid()), false},
			{Options{Mode: 0o777}, 0o777, uint32(os.Getegid()), false},
			{Options{Group: "4712"}, 0o660, 4712, true},
			{Options{Group: "4712", Mode: 0o666}, 0o666, 4712, true},
			{Options{Group: "root"}, 0o660, 0, true},
		} {
			if tt.root && os.Geteuid() != 0 {
				continue
			}
			unix.Umask(0o022)
			tt.o.Path = filepath.Join(directory(t), "s")
			unix.Umask(umask)
			l := listen(t, tt.o)
			info, err := os.Lstat(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode(); got != tt.mode|fs.ModeSocket || info.Sys().(*syscall.Stat_t).Gid != tt.gid {
				t.Errorf("umask %03o, %+v: mode %v of group %d", umask, tt.o, got, info.Sys().(*syscall.Stat_t).Gid)
			}
			l.Close()
		}
		unix.Umask(old)
	}
}

// Until it listens, only its owner can access the socket, even without a umask.
func TestModeBeforeListening(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(directory(t), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	o := &socketFile{path: path}
	if err := o.bind(fd); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o600, 0o666} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode|fs.ModeSocket {
			t.Errorf("mode %v before listening, want %04o", info.Mode(), mode)
		}
		if err := checkStale(path); err != nil {
			t.Errorf("a client could connect before it listens: %v", err)
		}
		if err := o.permit(0o666, -1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Mode: 0o4666}, "permission bits"},
		{Options{Mode: fs.ModeDir | 0o666}, "permission bits"},
		{Options{Mode: 0o066}, "for the owner"},
		{Options{Group: "no-such-group"}, "use the number of a group"},
		{Options{Group: "-1"}, "use the number of a group"},
		{Options{Group: "4294967295"}, "use the number of a group"},
	} {
		dir := directory(t)
		tt.o.Path, tt.o.Log = filepath.Join(dir, "s"), quiet
		_, err := Listen(tt.o)
		contains(t, err, tt.want)
		names(t, dir)
	}
}

func TestExistingFiles(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(path string) error
		want string // part of the error; "": the socket is created
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"stale socket", stale, ""},
		{"stale datagram socket", func(p string) error { return boundOnly(p, unix.SOCK_DGRAM, true) }, ""},
		{"live socket", alive, "another process listens on it (pid"},
		{"live datagram socket", func(p string) error { return boundOnly(p, unix.SOCK_DGRAM, false) }, "another process listens on it"},
		{"file", func(p string) error { return os.WriteFile(p, []byte("dear"), 0o600) }, "a file"},
		{"directory", func(p string) error { return os.Mkdir(p, 0o755) }, "a directory"},
		{"pipe", func(p string) error { return unix.Mkfifo(p, 0o600) }, "a named pipe"},
		{"dangling link", func(p string) error { return os.Symlink("nowhere", p) }, "a symbolic link"},
		{"link to a stale socket", func(p string) error {
			return errors.Join(stale(p+".old"), os.Symlink(p+".old", p))
		}, "a symbolic link"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(directory(t), "s")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			l, err := Listen(Options{Path: path, Log: quiet})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				dial(t, l)
				accept(t, l)
				return
			}
			contains(t, err, tt.want, path)
			if isLive := strings.Contains(tt.want, "listens"); errors.Is(err, ErrInUse) != isLive {
				t.Errorf("ErrInUse is %v: %v", !isLive, err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("the file was changed: %v", err)
			}
			if _, err := os.Lstat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the lock file was not removed: %v", err)
			}
		})
	}
}

func stale(path string) error { return boundOnly(path, unix.SOCK_STREAM, true) }

func boundOnly(path string, kind int, close bool) error {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if close {
		defer unix.Close(fd)
	}
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

// alive listens for as long as the test binary runs.
func alive(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

// A server with a full backlog counts as running.
func TestFullBacklogIsInUse(t *testing.T) {
	path := filepath.Join(directory(t), "s")
	if err := alive(path); err != nil {
		t.Fatal(err)
	}
	full := false
	for range 10 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		full = full || unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == unix.EAGAIN
	}
	if !full {
		t.Fatal("the backlog is not full")
	}
	if _, err := Listen(Options{Path: path, Log: quiet}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
}

// Close does not remove a file that another process has put at the path.
func TestCloseKeepsOtherSocket(t *testing.T) {
	for name, replace := range map[string]func(string) error{
		"socket":  stale,
		"file":    func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"nothing": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, Options{})
			path := l.Addr().String()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			after, _ := os.Lstat(path)
			if (before != nil) && (after == nil || !os.SameFile(before, after)) {
				t.Error("the other socket was removed")
			}
		})
	}
}

// helperListen waits for its input, listens on SOCKET, prints the result, and closes the
// listener before it exits.
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

// Of many processes that start together exactly one gets the socket, whatever files the
// last one has left.
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
			t.Fatal("no process listens")
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

// Concurrent lock and unlock: a lock on a removed file is not valid.
func TestLockHandover(t *testing.T) {
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
		"pipe":      {func(p string) error { return unix.Mkfifo(p, 0o600) }, "not a regular file of this user or root"},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, "is a directory"},
		"another user's": {func(p string) error {
			if os.Geteuid() != 0 {
				return os.Mkdir(p, 0o700) // requires root: any refusal is sufficient
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
				t.Errorf("the file was removed: %v", err)
			}
		})
	}
}

// The lock alone is sufficient: its holder may not have created the socket yet.
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
