package budget

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each block of commands in README.md has a comment before it that names what
// runs it: .ci/run, or a package of tests and a test in it that reads README.md.
func TestReadmeCommandsAreRun(t *testing.T) {
	text := read(t, "README.md")
	by := regexp.MustCompile(`^<!-- tested by (\S+)(?: (Test\w+))? -->$`)
	if n := strings.Count(text, "```sh\n"); n < 3 || n != strings.Count(text, "<!-- tested by ") {
		t.Fatalf("%d blocks of commands, not each has its comment", n)
	}
	for _, b := range regexp.MustCompile("(?m)^(.*)\n```sh\n((?:[^`].*\n|\n)*)```$").FindAllStringSubmatch(text, -1) {
		m := by.FindStringSubmatch(b[1])
		switch {
		case m == nil:
			t.Errorf("no test is named for:\n%s", b[2])
		case m[1] == ".ci/run":
			script := read(t, ".ci/run")
			for line := range strings.Lines(b[2]) {
				if !strings.Contains(script, strings.TrimSpace(line)) {
					t.Errorf(".ci/run does not run %s", strings.TrimSpace(line))
				}
			}
		case m[2] == "":
			target := strings.TrimPrefix(strings.TrimSpace(b[2]), "make ")
			if !strings.Contains(read(t, "Makefile"), "\n"+target+": ") {
				t.Errorf("there is no make target %q", target)
			}
			if tests, _ := filepath.Glob(filepath.Join(root, m[1], "*_test.go")); len(tests) == 0 {
				t.Errorf("%s has no tests", m[1])
			}
		default:
			found := false
			tests, _ := filepath.Glob(filepath.Join(root, m[1], "*_test.go"))
			for _, f := range tests {
				source, err := os.ReadFile(f)
				found = found || err == nil && strings.Contains(string(source), "func "+m[2]+"(") && strings.Contains(string(source), "README.md")
			}
			if !found {
				t.Errorf("%s has no %s that reads README.md", m[1], m[2])
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
