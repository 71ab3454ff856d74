package safepath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// asRoot skips the test if this process cannot change the owner of files.
func asRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change the owner of files")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// links creates symlinks like those of an administrator, in directories of root, and those
// of hostile users.
func links(t *testing.T, top string) {
	t.Helper()
	dir := func(name string, mode fs.FileMode, uid int) {
		must(t, os.MkdirAll(top+name, 0o755))
		must(t, os.Chown(top+name, uid, 0))
		must(t, os.Chmod(top+name, mode))
	}
	link := func(to, name string, uid int) {
		must(t, os.Symlink(to, top+name))
		must(t, os.Lchown(top+name, uid, 0))
	}
	dir("/var/mnt/there", 0o755, 0)
	dir("/sticky", 0o777|fs.ModeSticky, 0)
	dir("/sticky/own", 0o755, 0)
	dir("/open", 0o777, 0)
	dir("/open/below", 0o755, 0)
	dir("/user", 0o755, 1234)
	must(t, os.WriteFile(top+"/file", nil, 0o644))

	link("var/mnt", "/relative", 0)
	link(top+"/var/mnt", "/absolute", 0)
	link("../../var/./mnt//", "/var/mnt/up", 0)
	link("relative/there", "/chain", 0)
	link("nowhere/yet", "/dangling", 0)
	link("nowhere/../var", "/through", 0)
	link("loop", "/loop", 0)
	link("/", "/slash", 0)
	link("file", "/tofile", 0)
	link("var/mn\nt", "/control", 0)
	link(strings.Repeat("x/", 2040), "/long", 0)
	link("../var/mnt", "/sticky/of-root", 0)
	link("../var/mnt", "/sticky/of-user", 1234)
	link("../../var/mnt", "/sticky/own/fine", 0)
	link("../var/mnt", "/open/of-root", 0)
	link("../../var/mnt", "/open/below/of-root", 0)
	link("../var/mnt", "/user/of-root", 0)
	link("var/mnt", "/of-user", 1234)
	link("sticky/of-user", "/to-users", 0)
	for i := range maxLinks + 1 {
		to := fmt.Sprintf("link%d", i-1)
		if i == 0 {
			to = "var"
		}
		link(to, fmt.Sprintf("/link%d", i), 0)
	}
}

func TestTarget(t *testing.T) {
	asRoot(t)
	top := t.TempDir()
	links(t, top)
	for _, tt := range []struct {
		path, want string
		is         error
		text       string
	}{
		{path: "/var/mnt/there", want: "/var/mnt/there"},
		{path: "/var/mnt/there/new/er", want: "/var/mnt/there/new/er"},
		{path: "/new/er", want: "/new/er"},
		{path: "/file", want: "/file"},
		{path: "/sticky/own/x", want: "/sticky/own/x"},
		{path: "/open/below/x", want: "/open/below/x"}, // the Make functions refuse it
		{path: "/relative/x/y", want: "/var/mnt/x/y"},
		{path: "/relative", want: "/var/mnt"},
		{path: "/absolute/there", want: "/var/mnt/there"},
		{path: "/relative/up/there", want: "/var/mnt/there"},
		{path: "/chain/x", want: "/var/mnt/there/x"},
		{path: "/dangling", want: "/nowhere/yet"},
		{path: "/dangling/x", want: "/nowhere/yet/x"},
		{path: "/tofile", want: "/file"},
		{path: "/sticky/own/fine/x", want: "/var/mnt/x"},
		{path: fmt.Sprintf("/link%d/x", maxLinks-1), want: "/var/x"},

		{path: fmt.Sprintf("/link%d/x", maxLinks), is: unix.ELOOP, text: "more than 40 symlinks"},
		{path: "/loop", is: unix.ELOOP, text: "symlinks"},
		{path: "/through/x", is: fs.ErrNotExist, text: "/nowhere/.."},
		{path: "/slash", is: ErrBadPath, text: "the root directory"},
		{path: "/control/x", is: ErrBadPath, text: "control characters"},
		{path: "/long/" + strings.Repeat("y", 200), is: ErrBadPath, text: "too long"},
		{path: "/tofile/x", is: unix.ENOTDIR, text: "regular file"},
		{path: "/sticky/of-root/x", is: ErrSymlink, text: "can create entries in"},
		{path: "/sticky/of-root", is: ErrSymlink, text: "can create entries in"},
		{path: "/sticky/of-user", is: ErrSymlink, text: "can create entries in"},
		{path: "/open/of-root/x", is: ErrUnsafe, text: "/open: "},
		{path: "/open/of-root", is: ErrSymlink, text: "/open: "},
		{path: "/open/below/of-root", is: ErrUnsafe, text: "/open: "},
		{path: "/user/of-root", is: ErrUnsafe, text: "uid 1234"},
		{path: "/of-user/x", is: ErrSymlink, text: "uid 1234"},
		{path: "/of-user", is: ErrSymlink, text: "uid 1234"},
		{path: "/to-users", is: ErrSymlink, text: "/sticky/of-user"},
	} {
		want := tt.want
		if want != "" {
			want = top + want
		}
		got, err := Target(top+tt.path, Hooks{})
		if got != want || !errors.Is(err, tt.is) || tt.is != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.60s: %q, %v; want %q, %v", tt.path, got, err, want, tt.is)
		}
		if len(fmt.Sprint(err)) > 1000 {
			t.Errorf("%.60s: an error of %d bytes", tt.path, len(err.Error()))
		}
	}
}

func TestTargetBadPaths(t *testing.T) {
	for _, path := range []string{"", "/", "x", "/x/", "/x/../y", "/x\ny"} {
		if got, err := Target(path, Hooks{}); !errors.Is(err, ErrBadPath) || got != "" {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
}

// The walk closes its descriptors.
func TestTargetClosesDescriptors(t *testing.T) {
	asRoot(t)
	top := t.TempDir()
	links(t, top)
	open := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(e)
	}
	Target(top+"/chain", Hooks{}) // the runtime opens some descriptors once
	before := open()
	for range 20 {
		for _, p := range []string{"/relative/up/there/x", "/absolute/x", "/loop", "/of-user", "/tofile/x"} {
			Target(top+p, Hooks{})
		}
	}
	if after := open(); after > before+5 {
		t.Errorf("%d descriptors before, %d after the walk", before, after)
	}
}

// A user who can write to a directory repeatedly replaces root's symlink with another one:
// neither is ever followed.
func TestTargetInUserDirectory(t *testing.T) {
	asRoot(t)
	for _, mode := range []fs.FileMode{0o777, 0o777 | fs.ModeSticky} {
		top := t.TempDir()
		must(t, os.Mkdir(top+"/victim", 0o755))
		must(t, os.Mkdir(top+"/shared", 0o755))
		must(t, os.Chmod(top+"/shared", mode))
		must(t, os.Mkdir(top+"/shared/real", 0o755))
		must(t, os.Symlink("real", top+"/shared/a"))
		must(t, os.Symlink("../victim", top+"/shared/evil"))
		must(t, os.Lchown(top+"/shared/evil", 1234, 1234))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					unix.Renameat2(unix.AT_FDCWD, top+"/shared/a", unix.AT_FDCWD, top+"/shared/evil", unix.RENAME_EXCHANGE)
				}
			}
		})
		for range 2000 {
			if got, err := Target(top+"/shared/a/x", Hooks{}); err == nil {
				t.Errorf("mode %v: followed to %s", mode, got)
				break
			}
		}
		close(stop)
		wg.Wait()
	}
}
