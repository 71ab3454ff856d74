package safepath

import (
	"strings"
	"testing"
)

// Every tree and directory in the lists is denied; names with the same prefix are not.
func TestDenyMount(t *testing.T) {
	for _, dir := range systemTrees {
		for _, p := range []string{dir, dir + "/x", dir + "/x/y"} {
			if got := DenyMount(p); !strings.Contains(got, "on or below "+dir) {
				t.Errorf("%s: %q", p, got)
			}
		}
		if got := DenyMount(dir + "x"); got != "" {
			t.Errorf("%sx: %q", dir, got)
		}
	}
	for _, dir := range systemDirectories {
		if got := DenyMount(dir); got != "mounting is not allowed on "+dir+" itself" {
			t.Errorf("%s: %q", dir, got)
		}
		if got := DenyMount(dir + "/x"); got != "" {
			t.Errorf("%s/x: %q", dir, got)
		}
	}
	if DenyMount("/") == "" {
		t.Error("/ is not denied")
	}
}

func TestBelow(t *testing.T) {
	for _, tt := range []struct {
		p, dir string
		want   bool
	}{
		{"/a/b", "/a", true}, {"/a/b/c", "/a", true}, {"/a", "/", true},
		{"/a", "/a", false}, {"/", "/", false}, {"/ab", "/a", false}, {"/a", "/a/b", false},
	} {
		if got := Below(tt.p, tt.dir); got != tt.want {
			t.Errorf("Below(%q, %q) = %v", tt.p, tt.dir, got)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		path, dir string
		want      bool
	}{
		{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/a", "/a/b", false},
		{"/a", "/", true}, {"socket:[1]", "/", false}, {"", "/a", false}, {"/a (deleted)", "/a", false},
	} {
		if got := Within(tt.path, tt.dir); got != tt.want {
			t.Errorf("Within(%q, %q) = %v", tt.path, tt.dir, got)
		}
	}
}

func TestCheckMountRoots(t *testing.T) {
	if err := CheckMountRoots(strings.Split(DefaultMountRoots, ",")); err != nil {
		t.Errorf("default: %v", err)
	}
	tests := []struct {
		roots []string
		want  string // part of the error; empty = accepted
	}{
		{[]string{"/mnt", "/scratch/jobs", "/l"}, ""},
		{[]string{"/mnt", "/mnt/nnf"}, ""}, // redundant, but valid
		{[]string{"/opt", "/home", "/srv"}, ""},
		{[]string{"/var/mnt", "/var/lib/nnf"}, ""},
		{[]string{"/etcetera"}, ""},
		{nil, "the list is empty"},
		{[]string{}, "the list is empty"},
		{[]string{"/mnt", "relative"}, `"relative" is not accepted: the path must be absolute`},
		{[]string{""}, `"" is not accepted: the path must be absolute`},
		{[]string{"/"}, `"/" is not accepted`},
		{[]string{"/mnt/"}, `"/mnt/" is not accepted`},
		{[]string{"/mnt//nnf"}, "is not accepted"},
		{[]string{"/mnt/../etc"}, "is not accepted"},
		{[]string{"/mnt/."}, "is not accepted"},
		{[]string{"/a b"}, "a path consists of"},
		{[]string{"/$X"}, "a path consists of"},
		{[]string{"/\u202ex"}, `\u202e`},
		{[]string{"/etc"}, "on or below /etc"},
		{[]string{"/usr/local"}, "on or below /usr"},
		{[]string{"/run/user"}, "on or below /run"},
		{[]string{"/var/run"}, "on or below /var/run"},
		{[]string{"/var"}, `"/var" is not accepted: it contains system files`},
		{[]string{"/var/lib"}, `for example "/var/lib/nnf"`},
		{[]string{"/var/spool"}, "contains system files"},
		{[]string{"/mnt", "/x", "/mnt"}, `"/mnt" is in the list twice`},
		{[]string{"/" + strings.Repeat("x ", 5000)}, "..."},
	}
	for _, tt := range tests {
		check(t, CheckMountRoots(tt.roots), tt.roots, tt.want)
	}
	for _, dir := range systemTrees {
		check(t, CheckMountRoots([]string{dir}), []string{dir}, "on or below "+dir)
	}
}

func TestCheckMountOptions(t *testing.T) {
	if err := CheckMountOptions(strings.Split(DefaultMountOptions, ",")); err != nil {
		t.Errorf("default: %v", err)
	}
	tests := []struct {
		options []string
		want    string
	}{
		{nil, ""},
		{[]string{"nosuid", "nodev", "noexec", "x-systemd.automount", "uid=1001", "context=system_u:object_r:tmp_t:s0"}, ""},
		{[]string{"nosuid,nodev"}, "list each option as a separate entry"},
		{[]string{""}, `"" is not accepted`},
		{[]string{"nosuid "}, "is not accepted"},
		{[]string{"a b"}, "is not accepted"},
		{[]string{"-o"}, `"-o" is not accepted`},
		{[]string{"$(id)"}, "is not accepted"},
		{[]string{"a;b"}, "is not accepted"},
		{[]string{"a'b"}, "is not accepted"},
		{[]string{"a\nb"}, `"a\nb" is not accepted`},
		{[]string{"é"}, "is not accepted"},
		{[]string{strings.Repeat("x", 257)}, "is not accepted"},
		{[]string{"ro", "nodev", "ro"}, `"ro" is in the list twice`},
	}
	for _, tt := range tests {
		check(t, CheckMountOptions(tt.options), tt.options, tt.want)
	}
}

func check(t *testing.T, err error, list []string, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%.80q refused: %v", list, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%.80q: error %v, want %q", list, err, want)
	case err != nil && len(err.Error()) > 400:
		t.Errorf("%.80q: an error of %d bytes", list, len(err.Error()))
	}
}
