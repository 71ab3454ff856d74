package budget

import (
	"io/fs"
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
			if text, ok := testFile(t, m[2], m[3]); !ok || !strings.Contains(text, "README.md") {
				t.Errorf("%s has no %s that reads README.md", m[2], m[3])
			}
		}
	}
}

// Tests that other tests name, as a directory and a function, exist. A test
// that is renamed is noticed here, and not only where all suites run.
func TestNamedTestsExist(t *testing.T) {
	named := regexp.MustCompile("[\"`](internal/[a-z0-9/]+) (Test\\w+)[\"`]")
	found := 0
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			found++
			if _, ok := testFile(t, m[1], m[2]); !ok {
				t.Errorf("%s names %s in %s, which does not exist", path, m[2], m[1])
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d names of tests were found, %v", found, err)
	}
}

// testFile returns the text of the file in a directory of the repository that has a test.
func testFile(t *testing.T, dir, name string) (text string, ok bool) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), "\nfunc "+name+"(") {
			return string(source), true
		}
	}
	return "", false
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
