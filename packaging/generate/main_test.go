package main

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is generated instead of comparing")

const top = "../.."

// The generated files in the repository are up to date.
func TestUpToDate(t *testing.T) {
	changed, err := generate(top, *update)
	if err != nil {
		t.Fatal(err)
	}
	if len(changed) > 0 && !*update {
		t.Errorf("not up to date: %s: run make generate", strings.Join(changed, ", "))
	}
}

// All files in the directories of generated files are generated.
func TestNoObsoleteFiles(t *testing.T) {
	files, err := outputs(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"man", "completion", "catalog", "schemas"} {
		err := fs.WalkDir(os.DirFS(top), "packaging/"+dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && !slices.ContainsFunc(files, func(f output) bool { return f.path == path }) {
				t.Errorf("%s is not generated", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tree returns a copy of the files that the generator reads.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "docs"), os.DirFS(filepath.Join(top, "docs"))); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestRun(t *testing.T) {
	root := tree(t)
	call := func(args ...string) (code int, stdout, stderr string) {
		var out, err bytes.Buffer
		code = run(append([]string{"-root", root}, args...), &out, &err)
		return code, out.String(), err.String()
	}
	if code, stdout, stderr := call("-check"); code != 1 || !strings.Contains(stdout, "packaging/man/clientmountd.8\n") || !strings.Contains(stderr, "make generate") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	if code, stdout, stderr := call(); code != 0 || strings.Count(stdout, "\n") < 9 || stderr != "" {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	for _, args := range [][]string{nil, {"-check"}} {
		if code, stdout, stderr := call(args...); code != 0 || stdout != "" || stderr != "" {
			t.Errorf("second run: %d %q %q", code, stdout, stderr)
		}
	}
	page := filepath.Join(root, "packaging/man/nnf-dm.8")
	if err := os.WriteFile(page, []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := call("-check"); code != 1 || stdout != "packaging/man/nnf-dm.8\n" {
		t.Errorf("%d %q", code, stdout)
	}
	if data, err := os.ReadFile(page); err != nil || string(data) != "edited" {
		t.Errorf("-check has written: %q %v", data, err)
	}
	if code, _, _ := call("-nonsense"); code != 2 {
		t.Errorf("an unknown flag: %d", code)
	}
}

func TestRunFails(t *testing.T) {
	root := tree(t)
	path := filepath.Join(root, "docs/reference/nnf-dm.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte("<!-- end of records -->"), nil), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"-root", root}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "docs/reference/nnf-dm.md has no place for the records") {
		t.Errorf("%d %q", code, errs.String())
	}
}
