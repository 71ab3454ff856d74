package man

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// lints are the readers of manual pages, each with what makes it complain.
var lints = []struct {
	tool, pkg string
	args      []string
}{
	{"man", "man-db", []string{"--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z"}},
	{"mandoc", "mandoc", []string{"-T", "lint", "-W", "style,stop"}},
}

func TestLint(t *testing.T) {
	dir := t.TempDir()
	for name, text := range pages(t) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, lint := range lints {
		t.Run(lint.tool, func(t *testing.T) {
			if _, err := exec.LookPath(lint.tool); err != nil {
				if os.Getenv("E2E_REQUIRE") != "" {
					t.Fatalf("the pages cannot be looked at: %v; install %s", err, lint.pkg)
				}
				t.Skipf("the pages cannot be looked at: %v; install %s", err, lint.pkg)
			}
			for _, name := range names {
				if said := complaints(t, lint.tool, append(lint.args, filepath.Join(dir, name))...); said != "" {
					t.Errorf("%s:\n%s", name, said)
				}
			}
			// A page that is wrong has to be noticed, or this tests nothing.
			wrong := filepath.Join(dir, "wrong.1")
			if err := os.WriteFile(wrong, []byte(".TH WRONG 1 2026-01-01\n.SH NAME\nwrong \\- x\n.NO SUCH REQUEST\n\\fXy\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if complaints(t, lint.tool, append(lint.args, wrong)...) == "" {
				t.Errorf("%s finds nothing wrong with anything", lint.tool)
			}
		})
	}
}

// complaints is what a reader says about a page: mandoc on standard output, man
// on standard error, where standard output is the page.
func complaints(t *testing.T, tool string, args ...string) string {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MANPAGER=cat", "MANOPT=")
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	switch {
	case tool == "mandoc":
		return out.String() + errs.String()
	case err != nil || out.Len() == 0:
		t.Fatalf("%s %v: %v\n%s", tool, args, err, errs.String())
	}
	return errs.String()
}
