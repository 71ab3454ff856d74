package safepath

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// OpenDirectory follows the symlinks of an administrator, and accepts directories of other
// users but not their symlinks.
func TestOpenDirectory(t *testing.T) {
	asRoot(t)
	top := t.TempDir()
	links(t, top)
	must(t, os.MkdirAll(top+"/user/dir", 0o755))
	for path, want := range map[string]struct {
		at string
		is error
	}{
		"/var/mnt/there":        {at: "/var/mnt/there"},
		"/relative/there":       {at: "/var/mnt/there"},
		"/absolute/up/there":    {at: "/var/mnt/there"},
		"/open":                 {at: "/open"},
		"/open/below":           {at: "/open/below"},
		"/user/dir":             {at: "/user/dir"},
		"/sticky/own/fine":      {at: "/var/mnt"},
		"/file":                 {is: unix.ENOTDIR},
		"/missing":              {is: unix.ENOENT},
		"/missing/x":            {is: unix.ENOENT},
		"/dangling":             {is: unix.ENOENT},
		"/loop":                 {is: unix.ELOOP},
		"/sticky/of-user":       {is: ErrSymlink},
		"/sticky/of-root/there": {is: ErrSymlink},
		"/open/of-root":         {is: ErrSymlink},
		"/user/of-root/there":   {is: ErrUnsafe},
		"/of-user":              {is: ErrSymlink},
	} {
		d, err := OpenDirectory(top + path)
		if !errors.Is(err, want.is) || (err == nil) != (want.at != "") {
			t.Errorf("%s: %v, want %v", path, err, want.is)
		}
		if err != nil {
			continue
		}
		var got, at unix.Stat_t
		must(t, unix.Fstat(d.FD(), &got))
		must(t, unix.Stat(top+want.at, &at))
		if got.Ino != at.Ino || got.Dev != at.Dev {
			t.Errorf("%s: opened another directory than %s", path, want.at)
		}
		d.Close()
	}
}

func openDirectory(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDirectory(path)
	must(t, err)
	t.Cleanup(d.Close)
	return d
}

// The file is readable by all users even with a strict umask, and nothing else is left in
// the directory: neither a new file of a failed write, nor one of a crash.
func TestReplaceFile(t *testing.T) {
	top := t.TempDir()
	d := openDirectory(t, top)
	defer unix.Umask(unix.Umask(0o077))
	must(t, os.WriteFile(top+"/x.new", []byte("half"), 0o600))
	for _, text := range []string{"one\n", ""} {
		must(t, ReplaceFile(d.FD(), "x", "x.new", []byte(text), -1, -1))
		got, err := os.ReadFile(top + "/x")
		must(t, err)
		info, err := os.Stat(top + "/x")
		must(t, err)
		if string(got) != text || info.Mode() != 0o644 {
			t.Errorf("%q, mode %v", got, info.Mode())
		}
	}
	must(t, os.MkdirAll(top+"/taken/x", 0o755))
	if err := ReplaceFile(d.FD(), "taken", "taken.new", nil, -1, -1); err == nil {
		t.Error("a directory was replaced")
	}
	must(t, os.MkdirAll(top+"/y.new/x", 0o755))
	if err := ReplaceFile(d.FD(), "y", "y.new", nil, -1, -1); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a directory in the way of the new file: %v", err)
	}
	names, err := filepath.Glob(top + "/*.new")
	must(t, err)
	if len(names) != 1 { // y.new
		t.Errorf("left behind: %q", names)
	}
}

// A user who owns the directory replaces both names by links to a file of root all the
// time: that file never changes.
func TestReplaceFileInUserDirectory(t *testing.T) {
	asRoot(t)
	top := t.TempDir()
	must(t, os.Mkdir(top+"/user", 0o777))
	must(t, os.Chown(top+"/user", 1234, 1234))
	must(t, os.WriteFile(top+"/victim", []byte("precious"), 0o600))
	d := openDirectory(t, top+"/user")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, name := range []string{"x", "x.new"} {
				os.Remove(top + "/user/" + name)
				os.Symlink(top+"/victim", top+"/user/"+name)
				os.Remove(top + "/user/" + name)
				os.Link(top+"/victim", top+"/user/"+name)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 500 {
		_ = ReplaceFile(d.FD(), "x", "x.new", []byte("new"), -1, -1) // may fail
	}
	close(stop)
	wg.Wait()
	got, err := os.ReadFile(top + "/victim")
	must(t, err)
	info, err := os.Stat(top + "/victim")
	must(t, err)
	if string(got) != "precious" || info.Mode() != 0o600 {
		t.Errorf("the file of root was changed: %q, mode %v", got, info.Mode())
	}
}
