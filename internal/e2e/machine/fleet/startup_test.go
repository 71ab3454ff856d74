package fleet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The start-up files of root's login shell print and read what they like: each
// node is installed and looked at all the same, or the answer says what they did.
func TestStartUpFiles(t *testing.T) {
	f := New(t, 1)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	node := f.Nodes[0]
	expect(t, f.Ask("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	const cases = "internal/deploy/remote/testdata"
	paths, err := filepath.Glob(filepath.Join(f.repository(), cases, "bashrc-*"))
	if err != nil || len(paths) < 4 {
		t.Fatal(paths, err)
	}
	type login struct{ name, shell, file, text, cause string }
	list := []login{
		{"waits for a line", "/bin/bash", "/root/.bashrc", "read answer\n", "the start-up files of the login shell on compute-01 read standard input"},
		{"ends", "/bin/bash", "/root/.bashrc", "echo closed for maintenance; exit 1\n", "closed for maintenance"},
		{"dash", "/bin/dash", "/root/.profile", "", ""},
		{"tcsh", "/bin/tcsh", "/root/.cshrc", "echo -n title\n", ""},
		{"fish", "/usr/bin/fish", "/root/.config/fish/config.fish", "echo -n title\n", ""},
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, login{filepath.Base(path), "/bin/bash", "/root/.bashrc", string(text), ""})
	}
	for _, l := range list {
		t.Run(l.name, func(t *testing.T) {
			f := f.For(t)
			node := f.Nodes[0]
			if _, code, err := node.Run(node.Context(), "test -x "+l.shell); err != nil || code != 0 {
				t.Skipf("the node has no %s", l.shell)
			}
			node.Put(l.file, 0o644, []byte(l.text))
			node.Do("usermod -s " + l.shell + " root")
			defer node.Do("usermod -s /bin/bash root; rm -f " + l.file)
			r := f.Deploy("status", "-o", "json", "--connect-timeout", "3s")
			var s status
			if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil || len(s.Nodes) != 1 {
				t.Fatalf("%v: %+v", err, r)
			}
			if n := s.Nodes[0]; n.Well != (l.cause == "") || !strings.Contains(n.Cause, l.cause) || (n.Hint == "") != (l.cause == "") {
				t.Errorf("%+v", n)
			}
			if l.cause == "" {
				expect(t, f.Ask("install", append(older.PackageArguments(), "--force")...), 0, all(f.Nodes, "ok"))
			}
		})
	}
	healthy(t, f, node, older)
}
