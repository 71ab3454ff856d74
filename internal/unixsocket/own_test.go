package unixsocket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwnSocketComesAndGoes(t *testing.T) {
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
	// The place is free for the next.
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
	// Whatever the umask is; no other goroutine makes files now.
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

// Until it listens, the socket is its owner's alone, even without a umask.
func TestModeBeforeListening(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(directory(t), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	o := &own{path: path}
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
		if err := checkDead(path); err != nil {
			t.Errorf("somebody could connect before it listens: %v", err)
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
		{Options{Mode: 0o066}, "for its owner"},
		{Options{Group: "no-such-group"}, "by its number"},
		{Options{Group: "-1"}, "by its number"},
		{Options{Group: "4294967295"}, "by its number"},
	} {
		dir := directory(t)
		tt.o.Path, tt.o.Log = filepath.Join(dir, "s"), quiet
		_, err := Listen(tt.o)
		contains(t, err, tt.want)
		names(t, dir)
	}
}

func TestWhatLiesAtThePath(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(path string) error
		want string // of the error; "": the socket is made
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"stale socket", stale, ""},
		{"stale datagram socket", func(p string) error { return boundOnly(p, unix.SOCK_DGRAM, true) }, ""},
		{"live socket", alive, "another process listens there (pid"},
		{"live datagram socket", func(p string) error { return boundOnly(p, unix.SOCK_DGRAM, false) }, "another process listens there"},
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
				t.Errorf("it was touched: %v", err)
			}
			if _, err := os.Lstat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the lock file stays behind: %v", err)
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
	if err := boundOnly(path+".x", unix.SOCK_STREAM, true); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

// A live server that does not keep up is alive.
func TestFullBacklogIsAlive(t *testing.T) {
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

// What somebody put in the socket's place is not ours to remove.
func TestCloseLeavesAnothersSocket(t *testing.T) {
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
				t.Error("another's was removed")
			}
		})
	}
}
