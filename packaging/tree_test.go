package packaging

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row is a line of the list.
type row struct{ pkg, mode, owner, kind, path, source string }

func rows(t *testing.T) (list []row) {
	t.Helper()
	for line := range strings.Lines(read(t, "payload")) {
		if f := strings.Fields(line); len(f) == 6 && f[0] != "#" {
			list = append(list, row{f[0], f[1], f[2], f[3], f[4], f[5]})
		}
	}
	if len(list) < 60 {
		t.Fatalf("only %d lines", len(list))
	}
	return list
}

// Everything listed is in the tree, and everything in the folders that are for
// the packages alone is listed.
func TestListAndTreeAgree(t *testing.T) {
	listed := map[string]bool{}
	for _, r := range rows(t) {
		listed[r.source] = true
		if r.kind == "dir" || strings.HasPrefix(r.source, "bin/") {
			continue
		}
		if _, err := os.Stat(filepath.Join("..", r.source)); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{"etc", "systemd", "packaging/man", "packaging/completion", "packaging/catalog", "packaging/examples", "packaging/manifests"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			name := strings.TrimPrefix(path, "../")
			if err == nil && !d.IsDir() && !listed[name] && filepath.Ext(name) != ".go" {
				t.Errorf("%s is in no package", name)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// tmpfiles.d makes the same folders that the package owns; else rpm -V would
// find fault after each boot.
func TestFoldersAreThoseOfTmpfiles(t *testing.T) {
	for _, pkg := range []string{"clientmountd", "nnf-dm"} {
		var want, got []string
		for _, r := range rows(t) {
			if r.pkg == pkg && r.kind == "dir" && strings.HasPrefix(r.path, "/etc/") {
				want = append(want, r.path+" "+r.mode+" "+r.owner)
			}
		}
		for line := range strings.Lines(read(t, "../systemd/tmpfiles.d/"+pkg+".conf")) {
			if f := strings.Fields(line); len(f) >= 5 && f[0] == "d" {
				got = append(got, f[1]+" "+f[2]+" "+f[3]+":"+f[4])
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("tmpfiles.d has %q, the package %q", got, want)
		}
	}
}

// The user is made before its line of sysusers.d is there: by the same line.
func TestUserIsThatOfSysusers(t *testing.T) {
	script := read(t, "scriptlets/nnf-dm-pre.sh")
	found := false
	for line := range strings.Lines(read(t, "../systemd/sysusers.d/nnf-dm.conf")) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		found = true
		if !strings.Contains(script, "\n"+line) {
			t.Errorf("the scriptlet lacks %q", line)
		}
	}
	if !found {
		t.Error("sysusers.d makes no user")
	}
}
