package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/packaging"
)

// header has the metadata of a package.
type header struct {
	about      string // name, version, summary, description …
	files      []string
	relations  []string
	scriptlets string
}

// query queries a package file, with an empty rpm database.
func query(t *testing.T, file, format string) string {
	t.Helper()
	out, err := command([]string{"LC_ALL=C"}, "rpm", "-qp", "--nosignature", "--dbpath", t.TempDir(), "--queryformat", format, file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ghost matches a file that the package does not contain. For rpmbuild it is an empty one.
var ghost = regexp.MustCompile(`( g #)\S*$`)

func read(t *testing.T, file string) header {
	t.Helper()
	sorted := func(format string) []string {
		lines := strings.Split(strings.TrimSpace(query(t, file, format)), "\n")
		for i, l := range lines {
			lines[i] = ghost.ReplaceAllString(strings.Join(strings.Fields(l), " "), "$1")
		}
		slices.Sort(lines)
		// rpmbuild adds dependencies of its format, the package with its architecture and its
		// configuration, and the shell for each scriptlet.
		return slices.DeleteFunc(slices.Compact(lines), func(l string) bool {
			return l == "" || strings.Contains(l, " rpmlib(") || strings.Contains(l, " config(") || strings.Contains(l, "(x86-64)") || strings.Contains(l, "(aarch-64)")
		})
	}
	h := header{
		about: query(t, file, `%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{LICENSE} %{URL}\n%{SUMMARY}\n%{DESCRIPTION}\n`),
		files: sorted(`[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags} #%{FILEDIGESTS}\n]`),
	}
	for _, tag := range []string{"PREIN", "POSTIN", "PREUN", "POSTUN", "PRETRANS", "POSTTRANS"} {
		h.scriptlets += tag + "\n" + strings.TrimSpace(query(t, file, "%{"+tag+"}")) + "\n"
	}
	for _, relation := range []string{"REQUIRE", "PROVIDE", "OBSOLETE", "CONFLICT", "RECOMMEND"} {
		h.relations = append(h.relations, sorted(`[`+strings.ToLower(relation)+`s %{`+relation+`NAME} %{`+relation+`FLAGS:depflags} %{`+relation+`VERSION}\n]`)...)
	}
	return h
}

// paths returns the entries of files without their checksums.
func paths(files []string) (list []string) {
	for _, f := range files {
		list = append(list, f[:strings.LastIndex(f, " #")])
	}
	return list
}

// contents returns the contents of a package in nfpm.yaml.
func contents(t *testing.T, pkg string) []packaging.Content {
	t.Helper()
	list, err := packaging.Packages(filepath.Join(root, "nfpm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.Name == pkg && len(p.Contents) > 0 {
			return p.Contents
		}
	}
	t.Fatalf("nfpm.yaml lists nothing for %s", pkg)
	return nil
}

// The packages contain exactly the listed files, with these modes and owners.
func TestFiles(t *testing.T) {
	b := must(t, first)
	flags := map[string]string{"config|noreplace": " cn", "doc": " d", "license": " l", "ghost": " g", "": "", "dir": ""}
	for _, name := range names {
		var want []string
		for _, c := range contents(t, name) {
			kind := "10" // a file
			if c.Type == "dir" {
				kind = "4"
			}
			want = append(want, fmt.Sprintf("%s %s%04o %s:%s%s", c.Destination, kind, c.FileInfo.Mode, c.FileInfo.Owner, c.FileInfo.Group, flags[c.Type]))
		}
		slices.Sort(want)
		got := paths(read(t, b.rpmOf(t, name)).files)
		if lines := difference(got, want); lines != "" {
			t.Errorf("%s: %s", name, lines)
		}
	}
}

func TestRelations(t *testing.T) {
	b := must(t, first)
	for name, want := range map[string][]string{
		"clientmountd": {
			"requires /bin/sh", "requires systemd", "requires util-linux",
			"provides clientmountd = 0.1.0-1", "provides nnf-clientmount = 0.1.0-1",
			"obsoletes nnf-clientmount < 1000", "recommends lvm2", "recommends nvme-cli",
		},
		"nnf-dm":     {"requires /bin/sh", "requires systemd", "provides nnf-dm = 0.1.0-1"},
		"nnf-deploy": {"requires openssh-clients", "provides nnf-deploy = 0.1.0-1"},
	} {
		if lines := difference(read(t, b.rpmOf(t, name)).relations, want); lines != "" {
			t.Errorf("%s: %s", name, lines)
		}
	}
}

// The scriptlets are identical to the files in packaging/scriptlets.
func TestScriptlets(t *testing.T) {
	b := must(t, first)
	for _, name := range names {
		for kind, tag := range map[string]string{"pre": "PREIN", "post": "POSTIN", "preun": "PREUN", "postun": "POSTUN"} {
			want, err := os.ReadFile(filepath.Join(root, "packaging/scriptlets", name+"-"+kind+".sh"))
			if os.IsNotExist(err) {
				want = []byte("(none)")
			} else if err != nil {
				t.Fatal(err)
			}
			got := query(t, b.rpmOf(t, name), "%{"+tag+"}")
			if strings.TrimSpace(got) != strings.TrimSpace(string(want)) {
				t.Errorf("%%%s of %s is\n%s", kind, name, got)
			}
		}
	}
}
