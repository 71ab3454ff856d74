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
	by := regexp.MustCompile(`^<!-- tested by (?:(\.ci/run)|(\S+) (Test\w+)) -->$`)
	if n := strings.Count(text, "```sh\n"); n < 3 || n != strings.Count(text, "<!-- tested by ") {
		t.Fatalf("%d blocks of commands, not each has its comment", n)
	}
	for _, b := range regexp.MustCompile("(?m)^(.*)\n```sh\n((?:[^`].*\n|\n)*)```$").FindAllStringSubmatch(text, -1) {
		m := by.FindStringSubmatch(b[1])
		switch {
		case m == nil:
			t.Errorf("no test is named for:\n%s", b[2])
		case m[1] != "":
			script := read(t, ".ci/run")
			for line := range strings.Lines(b[2]) {
				line = strings.TrimSpace(line)
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line) + `( |$)`).MatchString(script) {
					t.Errorf(".ci/run does not run %s", line)
				}
			}
		default:
			found := false
			tests, _ := filepath.Glob(filepath.Join(root, m[2], "*_test.go"))
			for _, f := range tests {
				source, err := os.ReadFile(f)
				found = found || err == nil && strings.Contains(string(source), "func "+m[3]+"(") && strings.Contains(string(source), "README.md")
			}
			if !found {
				t.Errorf("%s has no %s that reads README.md", m[2], m[3])
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
