package manual

import (
	"os"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
)

// Guide holds a program with sub-commands against what its help, completion and
// manual page rely on.
func Guide(t *testing.T, program string, g cli.Guide) {
	t.Helper()
	takes := map[string]bool{} // a value, by the flag's name
	for _, c := range g.Commands {
		if c.Short == "" || strings.ContainsAny(c.Short[len(c.Short)-1:], ".\n") {
			t.Errorf("%s: %q is not a line without a full stop", c.Name, c.Short)
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 100 {
				t.Errorf("%s: a long line: %s", c.Name, line)
			}
		}
		for _, e := range c.Examples {
			if !strings.HasPrefix(e.Lines, program+" "+c.Name) || e.Comment == "" {
				t.Errorf("%s: %+v", c.Name, e)
			}
		}
		for _, f := range append(c.Flags, g.Flags...) {
			if was, seen := takes[f.Name]; seen && was != (f.Value != "") {
				t.Errorf("--%s takes a value with one command and none with another", f.Name)
			}
			takes[f.Name] = f.Value != ""
			if f.Meaning == "" || f.Default == "[]" || f.Default == "false" {
				t.Errorf("%s: %+v", c.Name, f)
			}
		}
	}
	if len(g.Commands) == 0 || len(g.Flags) == 0 || len(g.Environment) == 0 || len(g.Exits) == 0 {
		t.Errorf("something is not there at all: %+v", g)
	}
}

// Reference keeps the reference in a program's page equal to the text; update
// writes it.
func Reference(t *testing.T, program, text string, update bool) {
	t.Helper()
	begin, end := "<!-- reference: written by go test ./cmd/"+program+" -update -->\n", "<!-- end of reference -->\n"
	page := Read(t, program).Text
	head, rest, ok1 := strings.Cut(page, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the manual has no place for the reference")
	}
	want := head + begin + text + end + tail
	if want == page {
		return
	}
	if !update {
		t.Fatalf("the reference in docs/%s.md is not the program's: go test ./cmd/%s -update", program, program)
	}
	if err := os.WriteFile(path(program), []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
