package copytool

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMpirunProgram(t *testing.T) {
	hostfile := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hostfile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"dcp a b":                   "dcp a b",
		"--allow-run-as-root dcp a": "dcp a",
		"--hostfile H -np 4 --mca x y -x A=B --bind-to core dcp --uid 1 a b": "dcp --uid 1 a b",
		"-- -x":              "-x",
		"":                   "error: no program",
		"-np":                "error: requires 1 values",
		"--mca x":            "error: requires 2 values",
		"--hostfile /no dcp": "error: hostfile",
		"--fly dcp":          "error: unrecognized option --fly",
	} {
		got, err := mpirunProgram(strings.Fields(strings.ReplaceAll(line, "H ", hostfile+" ")))
		if hint, bad := strings.CutPrefix(want, "error: "); bad {
			if err == nil || !strings.Contains(err.Error(), hint) {
				t.Errorf("%q: %q, %v; want %q", line, got, err, hint)
			}
		} else if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
}

func TestMpirunMissingProgram(t *testing.T) {
	var out bytes.Buffer
	if code := mpirun([]string{"no-such-program"}, &out); code != 134 || !strings.Contains(out.String(), "no-such-program") {
		t.Errorf("%d, %s", code, &out)
	}
}

// source creates a tree: file (3 bytes), sub/big (10,000 bytes), sub/link.
func source(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "src")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"file": 3, "sub/big": 10_000} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), size), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "sub/link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree returns the paths below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != dir {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func call(t *testing.T, environment map[string]string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := dcp(args, &out, &out, func(name string) string { return environment[name] })
	return code, out.String()
}

func TestCopy(t *testing.T) {
	const all = "file sub sub/big sub/link"
	for name, test := range map[string]struct {
		from, to string // below the source and the destination, which exist
		want     string
	}{
		"directory into directory": {"", "", "src src/file src/sub src/sub/big src/sub/link"},
		"contents":                 {"/", "", all},
		"directory to new name":    {"", "/new", "new new/file new/sub new/sub/big new/sub/link"},
		"file into directory":      {"/file", "", "file"},
		"file to new name":         {"/file", "/x", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := source(t), t.TempDir()
			if code, out := call(t, nil, "--preserve", "--progress", "1", from+test.from, to+test.to); code != 0 {
				t.Fatal(code, out)
			}
			if got := tree(t, to); got != test.want {
				t.Errorf("copied %q, want %q", got, test.want)
			}
		})
	}
}

func TestCopyKeeps(t *testing.T) {
	from, to := source(t), t.TempDir()
	old := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(from+"/file", old, old); err != nil {
		t.Fatal(err)
	}
	code, out := call(t, nil, "-p", from+"/", to)
	if code != 0 || !strings.Contains(out, "(100%)") || !strings.Contains(out, "Items: 5\n  Directories: 2\n  Files: 2\n  Links: 1\n") || !strings.Contains(out, "(10003 bytes)") {
		t.Errorf("%d, %s", code, out)
	}
	if link, err := os.Readlink(to + "/sub/link"); link != "/etc/shadow" {
		t.Errorf("link %q, %v", link, err)
	}
	if info, err := os.Stat(to + "/file"); err != nil || info.Mode() != 0o640 || !info.ModTime().Equal(old) {
		t.Errorf("%v, %v", info, err)
	}
	if code, out := call(t, nil, from+"/", to); code != 0 {
		t.Errorf("second copy: %d, %s", code, out)
	}
}

func TestCopyRefuses(t *testing.T) {
	from := source(t)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown option": {[]string{"--fly", "a", "b"}, "--fly"},
		"one path":       {[]string{"a"}, "destination"},
		"nothing there":  {[]string{from + "/none", t.TempDir()}, "no such file"},
		"into itself":    {[]string{from, from + "/sub"}, "into itself"},
		"many to a file": {[]string{from, from, from + "/file"}, "not a directory"},
		"device":         {[]string{"/dev/null", t.TempDir()}, "not a regular file"},
	} {
		if code, out := call(t, nil, test.args...); code != 1 || !strings.Contains(out, test.want) {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
}

func TestInjectedFailure(t *testing.T) {
	for _, path := range []string{"/", "/file"} {
		from, to := source(t), t.TempDir()
		code, out := call(t, map[string]string{ExitVariable: "9"}, from+path, to)
		if code != 9 || !strings.Contains(out, "injected") || strings.Contains(out, "(100%)") {
			t.Errorf("%s: %d, %s", path, code, out)
		}
	}
	for _, name := range []string{ExitVariable, RateVariable} {
		if code, out := call(t, map[string]string{name: "x"}, "a", "b"); code != 1 || !strings.Contains(out, name) {
			t.Errorf("%d, %s", code, out)
		}
	}
}

func TestProgressOfSlowCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := source(t), t.TempDir()
		start := time.Now()
		code, out := call(t, map[string]string{RateVariable: "2000"}, "--progress", "1", from+"/sub/big", to)
		if took := time.Since(start); code != 0 || took < 5*time.Second-time.Millisecond || took > 5*time.Second+time.Millisecond {
			t.Errorf("%d after %v", code, took)
		}
		for _, want := range []string{"(20%)", "(40%)", "(60%)", "(80%)", "1.953 KiB/s", "(100%) in 5.000 secs"} {
			if !strings.Contains(out, want) {
				t.Errorf("lacks %s: %s", want, out)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for _, name := range Names() {
		if !Is("/x/" + name) {
			t.Error(name)
		}
	}
	if Is("/x/devcluster") || Is("/dcp/x") {
		t.Error("Is accepts other names")
	}
}
