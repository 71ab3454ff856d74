package packaging

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func packages(t *testing.T) []Package {
	t.Helper()
	list, err := Packages("../nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	contents := 0
	for _, p := range list {
		names = append(names, p.Name)
		contents += len(p.Contents)
	}
	if !slices.Equal(names, []string{"clientmountd", "nnf-dm", "nnf-deploy"}) || contents < 60 {
		t.Fatalf("nfpm.yaml has %d entries for %q", contents, names)
	}
	return list
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every source exists, and every file in the directories for packages is in a package.
func TestListAndTreeAgree(t *testing.T) {
	listed := map[string]bool{}
	for _, p := range packages(t) {
		for _, c := range p.Contents {
			listed[c.Source] = true
			if c.Type == "dir" || strings.HasPrefix(c.Source, "bin/") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", c.Source)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, dir := range []string{"etc", "systemd", "packaging/man", "packaging/completion", "packaging/catalog", "packaging/examples", "packaging/manifests", "packaging/schemas"} {
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

// tmpfiles.d creates the directories with the same modes and owners as the package.
// Otherwise rpm -V would report differences after each boot.
func TestDirectoriesAreThoseOfTmpfiles(t *testing.T) {
	for _, p := range packages(t) {
		if p.Name == "nnf-deploy" {
			continue
		}
		var want, got []string
		for _, c := range p.Contents {
			if c.Type == "dir" && (strings.HasPrefix(c.Destination, "/etc/") || strings.HasPrefix(c.Destination, "/var/lib/")) {
				want = append(want, fmt.Sprintf("%s %04o %s:%s", c.Destination, c.FileInfo.Mode, c.FileInfo.Owner, c.FileInfo.Group))
			}
		}
		for line := range strings.Lines(read(t, "../systemd/tmpfiles.d/"+p.Name+".conf")) {
			if f := strings.Fields(line); len(f) >= 5 && f[0] == "d" {
				got = append(got, f[1]+" "+f[2]+" "+f[3]+":"+f[4])
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("tmpfiles.d has %q, the package %q", got, want)
		}
	}
}
