package manual

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The help of the tools fits a terminal of 80 columns. Only examples, which are indented,
// are as long as they need to be.
func TestWidthOfHelp(t *testing.T) {
	for name, run := range map[string]func(context.Context, cli.Process, []string) int{dmctl.Name: dmctl.Program.Run, deploy.Name: deploy.Program.Run} {
		commands := [][]string{{"--help"}}
		for _, c := range guide(name).Commands {
			commands = append(commands, []string{c.Name, "--help"})
		}
		for _, args := range commands {
			var out bytes.Buffer
			if code := run(t.Context(), cli.Process{Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard}, args); code != cli.ExitOK {
				t.Errorf("%s %q: exit code %d", name, args, code)
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > text.Columns && !strings.HasPrefix(line, "    "+name) {
					t.Errorf("%s %q: %d columns: %s", name, args, n, line)
				}
			}
		}
	}
}

func guide(name string) cli.Guide {
	if name == dmctl.Name {
		return dmctl.Program.Guide()
	}
	return deploy.Program.Guide()
}

// The text of the manual pages fits a terminal of 80 columns; examples may be longer.
func TestWidthOfManualPages(t *testing.T) {
	require.Tool(t, "mandoc")
	pages, err := filepath.Glob(filepath.Join(repository, "packaging/man/*.[158]"))
	if err != nil || len(pages) < 6 {
		t.Fatalf("%d manual pages, %v", len(pages), err)
	}
	for _, p := range pages {
		out, err := exec.Command("mandoc", "-T", "utf8", "-O", "width=80", p).Output()
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		for line := range strings.Lines(regexp.MustCompile(`.\x08`).ReplaceAllString(string(out), "")) {
			n := utf8.RuneCountInString(strings.TrimRight(line, "\n"))
			if example := strings.HasPrefix(line, strings.Repeat(" ", 9)) && strings.Contains(line, "nnf-d"); n > text.Columns && !example {
				t.Errorf("%s: %d columns: %s", filepath.Base(p), n, line)
			}
		}
	}
}
