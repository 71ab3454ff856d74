package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const list = `name: a
version: ${RPM_VERSION}
version_schema: none
description: The first.
depends: [x]
scripts: {preinstall: packaging/a-pre.sh}
rpm: {summary: first}
contents:
  - {src: bin/a, dst: /usr/bin/a, file_info: {mode: 0755}}
  - {dst: /etc/a, type: dir, file_info: {mode: 0750, group: grp}}
  - {src: etc/a.toml, dst: /etc/a/a.toml, type: config|noreplace, file_info: {mode: 0640, group: grp}}
  - {src: man/a.8, dst: /usr/man8/a.8.gz, type: doc}
  - {src: cat/both.catalog, dst: /usr/cat/a.catalog}
---
name: b
version: "1"
version_schema: none
contents:
  - {src: LICENSE, dst: /usr/b/LICENSE, type: license}
  - {src: cat/both.catalog, dst: /usr/cat/b.catalog}
`

// tree creates a source tree with nfpm.yaml and returns its path.
func tree(t *testing.T, list string, without ...string) string {
	t.Helper()
	dir := t.TempDir()
	filter, err := os.ReadFile("../../catalog.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nfpm.yaml": list, "packaging/catalog.sh": string(filter), "packaging/a-pre.sh": "exit 0\n",
		"bin/a": "program", "etc/a.toml": "x = 1", "man/a.8": ".TH A 8\n", "LICENSE": "free\n", "cat/both.catalog": `# head

-- 01
Subject: of a
Documentation: man:a(8)

one

-- 02
Subject: of b
Documentation: man:b(8)

two

-- 03
Subject: of both
Documentation: man:a(8)
Documentation: man:b(8)

three
`,
		"template": `{{range .}}{{.Name}} {{.Version}} {{env "RPM_VERSION"}}
{{files .}}{{scriptlets .}}{{end}}`,
	} {
		path := filepath.Join(dir, name)
		if slices.Contains(without, name) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// packager runs the program with nfpm.yaml of the tree.
func packager(dir string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"--config", filepath.Join(dir, "nfpm.yaml")}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestRoot(t *testing.T) {
	dir := tree(t, list)
	root := filepath.Join(dir, "root")
	if code, out, errs := packager(dir, "root", root); code != 0 || out+errs != "" {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	var got []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		name := strings.TrimPrefix(path, root)
		if !d.IsDir() || name == "/etc/a" {
			got = append(got, fmt.Sprintf("%s %04o", name, info.Mode().Perm()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/etc/a 0750", "/etc/a/a.toml 0640", "/usr/b/LICENSE 0644", "/usr/bin/a 0755", "/usr/cat/a.catalog 0644", "/usr/cat/b.catalog 0644", "/usr/man8/a.8.gz 0644"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for file, want := range map[string][3]string{"a": {"one", "three", "two"}, "b": {"two", "three", "one"}} {
		text, err := os.ReadFile(filepath.Join(root, "usr/cat", file+".catalog"))
		if s := string(text); err != nil || !strings.HasPrefix(s, "# head\n") || !strings.Contains(s, want[0]) || !strings.Contains(s, want[1]) || strings.Contains(s, want[2]) {
			t.Errorf("catalogue of %s: %v\n%s", file, err, s)
		}
	}
	page, err := exec.Command("gzip", "-dc", filepath.Join(root, "usr/man8/a.8.gz")).Output()
	if err != nil || string(page) != ".TH A 8\n" {
		t.Errorf("page %q, %v", page, err)
	}
}

func TestSpec(t *testing.T) {
	dir := tree(t, list)
	t.Setenv("RPM_VERSION", "7")
	code, out, errs := packager(dir, "spec", filepath.Join(dir, "template"))
	want := `a 7 7
%attr(0755,root,root) /usr/bin/a
%attr(0750,root,grp) %dir /etc/a
%attr(0640,root,grp) %config(noreplace) /etc/a/a.toml
%attr(0644,root,root) %doc /usr/man8/a.8.gz
%attr(0644,root,root) /usr/cat/a.catalog
%pre -n a -f packaging/a-pre.sh
b 1 7
%attr(0644,root,root) %license /usr/b/LICENSE
%attr(0644,root,root) /usr/cat/b.catalog
`
	if code != 0 || errs != "" || out != want {
		t.Errorf("exit code %d: %s, got\n%swant\n%s", code, errs, out, want)
	}
}

// The packages themselves are tested in internal/e2e/packages.
func TestRPM(t *testing.T) {
	dir := tree(t, list)
	out := t.TempDir()
	t.Setenv("RPM_VERSION", "7")
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"rpm", out, "b"}, []string{"b-1-1.x86_64.rpm"}},
		{[]string{"rpm", out}, []string{"a-7-1.x86_64.rpm", "b-1-1.x86_64.rpm"}},
	} {
		if code, _, errs := packager(dir, test.args...); code != 0 {
			t.Errorf("%q: exit code %d: %s", test.args, code, errs)
		}
		made, _ := filepath.Glob(filepath.Join(out, "*"))
		for i := range made {
			made[i] = filepath.Base(made[i])
		}
		if !slices.Equal(made, test.want) {
			t.Errorf("%q: built %q, want %q", test.args, made, test.want)
		}
	}
	if code, _, errs := packager(dir, "rpm", "--root", filepath.Join(dir, "nothing"), out); code != 1 || !strings.Contains(errs, "nothing/usr/bin/a") {
		t.Errorf("without a root: exit code %d: %s", code, errs)
	}
}

func TestRefuses(t *testing.T) {
	one := func(entry string) string {
		return "name: a\nversion: \"1\"\ncontents:\n  - {" + entry + "}\n"
	}
	for name, test := range map[string]struct {
		list    string
		without []string
		args    []string
		code    int
		prints  []string
	}{
		"missing sources": {list, []string{"bin/a", "LICENSE"}, []string{"root", "DIR"}, 1, []string{
			"packager: bin/a (installed as /usr/bin/a) is missing\n",
			"packager: LICENSE (installed as /usr/b/LICENSE) is missing\n",
		}},
		"type that the spec lacks": {one("src: bin/a, dst: /a, type: tree"), nil, []string{"root", "DIR"}, 1, []string{"/a has the unknown type tree"}},
		"unknown key":              {one("src: bin/a, dst: /a, user: u"), nil, []string{"root", "DIR"}, 1, []string{"document 1", "user"}},
		"no list":                  {"", []string{"nfpm.yaml"}, []string{"root", "DIR"}, 1, []string{"nfpm.yaml: no such file"}},
		"no version":               {list, nil, []string{"rpm", "DIR"}, 1, []string{"variables that are not set: RPM_VERSION\n"}},
		"no version for the spec":  {list, nil, []string{"spec", "template"}, 1, []string{"the variable RPM_VERSION is not set"}},
		"no directory":             {list, nil, []string{"root"}, 2, []string{"usage: packager "}},
		"unknown command":          {list, nil, []string{"build", "DIR"}, 2, []string{"usage: packager "}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, test.list, test.without...)
			if last := len(test.args) - 1; test.args[last] == "DIR" || test.args[last] == "template" {
				test.args[last] = filepath.Join(dir, test.args[last])
			}
			code, out, errs := packager(dir, test.args...)
			if code != test.code || out != "" {
				t.Errorf("exit code %d, want %d; it prints %q", code, test.code, out)
			}
			for _, s := range test.prints {
				if !strings.Contains(errs, s) {
					t.Errorf("%q is not in %s", s, errs)
				}
			}
		})
	}
}
