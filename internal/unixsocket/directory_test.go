package unixsocket

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestResolve(t *testing.T) {
	base := directory(t)
	dir := func(name string, mode os.FileMode) string {
		p := filepath.Join(base, name)
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	link := func(name, target string) string {
		p := filepath.Join(base, name)
		if err := os.Symlink(target, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	run := dir("run", 0o755)
	dir("run/sub", 0o755)
	link("absolute", run)
	link("relative", "run/./sub/..")
	link("run/sub/up", "../../absolute/sub")
	link("loop", "loop")
	link("nowhere", "missing/dir")
	dir("open", 0o777)
	dir("open/below", 0o755)
	dir("group", 0o775)
	dir("sticky", 0o777|os.ModeSticky)
	dir("sticky/below", 0o700)
	if err := os.WriteFile(base+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link("into-open", "open/below")

	tests := []struct{ path, want, err string }{
		{base + "/run/s", run + "/s", ""},
		{base + "//run/./sub/../s", run + "/s", ""},
		{base + "/absolute/s", run + "/s", ""},
		{base + "/relative/s", run + "/s", ""},
		{base + "/run/sub/up/up/s", run + "/sub/s", ""},
		{base + "/sticky/s", base + "/sticky/s", ""},
		{base + "/sticky/below/s", base + "/sticky/below/s", ""},
		{base + "/loop/s", "", "too many levels"},
		{base + "/nowhere/s", "", "RuntimeDirectory="},
		{base + "/missing/s", "", base + "/missing does not exist"},
		{base + "/file/s", "", "not a directory"},
		{base + "/open/s", "", "mode 0777"},
		{base + "/open/below/s", "", "chmod go-w " + base + "/open"},
		{base + "/into-open/s", "", "mode 0777"},
		{base + "/group/s", "", "mode 0775"},
		{base + "/run/", "", "is a directory"},
		{"/", "", "is a directory"},
		{"", "", "not an absolute path"},
		{"run/s", "", "not an absolute path"},
		{"@abstract", "", "not an absolute path"},
		{base + "/run/a\x00b", "", "not an absolute path"},
		{base + "/run/" + strings.Repeat("n", 103-len(run)), "", ""},
		{base + "/run/" + strings.Repeat("n", 107-len(run)), "", "choose a shorter path"},
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir("theirs", 0o755), 4711, 4711); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(link("sticky/their-link", run), 4711, 4711); err != nil {
			t.Fatal(err)
		}
		tests = append(tests, []struct{ path, want, err string }{
			{base + "/theirs/s", "", "belongs to uid 4711"},
			{base + "/sticky/their-link/s", "", "symbolic link of uid 4711"},
		}...)
	}
	for _, tt := range tests {
		got, err := resolve(tt.path)
		switch {
		case tt.err != "":
			contains(t, err, tt.err)
		case err != nil:
			t.Errorf("%q: %v", tt.path, err)
		case tt.want != "" && got != tt.want:
			t.Errorf("%q: got %q, want %q", tt.path, got, tt.want)
		}
	}
}

// The kernel accepts the longest path that resolve accepts.
func TestLongestPath(t *testing.T) {
	dir := directory(t)
	listen(t, Options{Path: filepath.Join(dir, strings.Repeat("n", maxSocketPath-len(dir)-1))})
}

// Two paths of the same file are one socket with one lock.
func TestSamePlace(t *testing.T) {
	dir := directory(t)
	if err := os.Symlink(".", filepath.Join(dir, "var")); err != nil {
		t.Fatal(err)
	}
	listen(t, Options{Path: filepath.Join(dir, "s")})
	_, err := Listen(Options{Path: filepath.Join(dir, "var/s"), Log: quiet})
	contains(t, err, ErrInUse.Error(), "(pid "+strconv.Itoa(os.Getpid())+", uid ")
	if !samePlace(dir+"/s", dir+"/var/s") || samePlace(dir+"/s", dir+"/t") || !samePlace("@x", "@x") {
		t.Error("samePlace")
	}
}
