package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes a tree with payload.sh, the given list and files.
func tree(t *testing.T, list string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	script, err := os.ReadFile("payload.sh")
	if err != nil {
		t.Fatal(err)
	}
	files["packaging/payload"] = list
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "packaging/payload.sh"), script, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func payload(dir string, args ...string) (string, error) {
	out, err := exec.Command(filepath.Join(dir, "packaging/payload.sh"), args...).CombinedOutput()
	return string(out), err
}

const list = `# comment
a 0755 root:root file    /usr/bin/a          bin/a

a 0750 root:grp  dir     /etc/a              -
a 0640 root:grp  config  /etc/a/a.toml       etc/a.toml
a 0644 root:root man     /usr/man8/a.8.gz    man/a.8
a 0644 root:root catalog /usr/cat/a.catalog  cat/both
b 0644 root:root license /usr/b/LICENSE      LICENSE
b 0644 root:root catalog /usr/cat/b.catalog  cat/both
`

func sources() map[string]string {
	return map[string]string{"bin/a": "program", "etc/a.toml": "x = 1", "man/a.8": ".TH A 8\n", "LICENSE": "free\n", "cat/both": `# head

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
`}
}

func TestPayloadInstalls(t *testing.T) {
	dir := tree(t, list, sources())
	root := filepath.Join(dir, "root")
	if out, err := payload(dir, "install", root); err != nil || out != "" {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
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

func TestPayloadLists(t *testing.T) {
	dir := tree(t, list, sources())
	for _, test := range []struct {
		kind, pkg string
		want      []string
	}{
		{"files", "a", []string{
			"%attr(0755,root,root) /usr/bin/a", "%attr(0750,root,grp) %dir /etc/a", "%attr(0640,root,grp) %config(noreplace) /etc/a/a.toml",
			"%attr(0644,root,root) %doc /usr/man8/a.8.gz", "%attr(0644,root,root) /usr/cat/a.catalog",
		}},
		{"files", "b", []string{"%attr(0644,root,root) %license /usr/b/LICENSE", "%attr(0644,root,root) /usr/cat/b.catalog"}},
		{"nfpm", "a", []string{
			"contents:",
			"  - {src: root/usr/bin/a, dst: /usr/bin/a, file_info: {mode: 0755, owner: root, group: root}}",
			"  - {dst: /etc/a, type: dir, file_info: {mode: 0750, owner: root, group: grp}}",
			"  - {src: root/etc/a/a.toml, dst: /etc/a/a.toml, type: config|noreplace, file_info: {mode: 0640, owner: root, group: grp}}",
			"  - {src: root/usr/man8/a.8.gz, dst: /usr/man8/a.8.gz, type: doc, file_info: {mode: 0644, owner: root, group: root}}",
			"  - {src: root/usr/cat/a.catalog, dst: /usr/cat/a.catalog, file_info: {mode: 0644, owner: root, group: root}}",
		}},
	} {
		out, err := payload(dir, test.kind, test.pkg)
		if want := strings.Join(test.want, "\n") + "\n"; err != nil || out != want {
			t.Errorf("%s %s: %v, got\n%swant\n%s", test.kind, test.pkg, err, out, want)
		}
	}
}

// What is wrong with a list is said once for all of it.
func TestPayloadRefuses(t *testing.T) {
	missing := sources()
	delete(missing, "bin/a")
	delete(missing, "LICENSE")
	for name, test := range map[string]struct {
		list  string
		files map[string]string
		says  []string
	}{
		"missing sources": {list, missing, []string{
			"payload: bin/a is missing, which is to be installed as /usr/bin/a\n",
			"payload: LICENSE is missing, which is to be installed as /usr/b/LICENSE\n",
		}},
		"unknown kind": {"a 0644 root:root fifo /a bin/a\n", sources(), []string{"payload: /a is of the unknown kind fifo"}},
		"columns":      {"a 0644 root:root file /a\n", sources(), []string{"payload: line 1 does not have 6 columns: a 0644"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, test.list, test.files)
			out, err := payload(dir, "install", filepath.Join(dir, "root"))
			if err == nil {
				t.Error("it did not fail")
			}
			for _, s := range test.says {
				if !strings.Contains(out, s) {
					t.Errorf("it did not say %q: %s", s, out)
				}
			}
		})
	}
}
