// Package manual keeps a program's page in docs/ equal to its code: the settings,
// the kinds of log records and their fields. Its callers are the tests of the
// programs, in cmd/NAME.
//
// It must not know what a program does.
package manual

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
)

const root = "../.." // as seen from cmd/NAME

// Page is docs/NAME.md.
type Page struct {
	Program string
	Text    string
}

// Read returns a program's page.
func Read(t *testing.T, program string) *Page {
	t.Helper()
	data, err := os.ReadFile(path(program))
	if err != nil {
		t.Fatal(err)
	}
	return &Page{program, string(data)}
}

func path(program string) string { return root + "/docs/" + program + ".md" }

// Section returns what stands below a heading, up to the next one of level 2.
func (p *Page) Section(t *testing.T, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(p.Text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/%s.md has no %q", p.Program, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// Settings tests that the settings in the page are those of the table; update
// writes them.
func (p *Page) Settings(t *testing.T, table *config.Table, update bool) {
	t.Helper()
	command := "go test ./cmd/" + p.Program + " -update"
	begin, end := "<!-- settings: written by "+command+" -->\n", "<!-- end of settings -->\n"
	head, rest, ok1 := strings.Cut(p.Text, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the manual has no place for the settings")
	}
	want := head + begin + settings(table) + end + tail
	if want == p.Text {
		return
	}
	if !update {
		t.Fatalf("the settings in docs/%s.md are not those of the table: %s", p.Program, command)
	}
	if err := os.WriteFile(path(p.Program), []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Events tests that every kind of record has its row, with its id, and that no
// row is of the past.
func (p *Page) Events(t *testing.T, events []daemon.Event) {
	t.Helper()
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| `([0-9a-f]{32})` \\|").FindAllStringSubmatch(p.Text, -1) {
		rows[m[2]] = m[1]
	}
	for _, e := range append(events, daemon.Events()...) {
		if rows[e.ID] != e.Name {
			t.Errorf("no row for | `%s` | `%s` |", e.Name, e.ID)
		}
		delete(rows, e.ID)
	}
	for id, name := range rows {
		t.Errorf("the row of %s, %s, is of no event", name, id)
	}
}

// Fields tests that every field of the records that some packages write is in
// the page's table, and nothing else.
func (p *Page) Fields(t *testing.T, dirs ...string) {
	t.Helper()
	var known []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(p.Section(t, "### Fields"), -1) {
		known = append(known, m[1])
	}
	keys := logKeys(t, dirs...)
	for i, key := range keys {
		if key == "duration" { // the journal's name says the unit
			key, keys[i] = "duration_ms", "duration_ms"
		}
		if !slices.Contains(known, strings.ToUpper(key)) {
			t.Errorf("the field %s is not explained", strings.ToUpper(key))
		}
	}
	for _, k := range known {
		if !slices.Contains(keys, strings.ToLower(k)) && !slices.Contains([]string{"EVENT", "MESSAGE_ID", "DURATION_MS"}, k) {
			t.Errorf("the field %s is in no record", k)
		}
	}
}
