// Package manual keeps a program's page in docs/ equal to its code: the settings,
// the kinds of log records and their fields. Its callers are the tests of the
// programs, in cmd/NAME.
//
// It must not know what a program does.
package manual

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
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

// logKeys finds the words that stand where a key of a log call stands.
func logKeys(t *testing.T, dirs ...string) []string {
	t.Helper()
	first := map[string]int{"With": 0, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3, "warn": 1, "Started": 1}
	var keys []string
	Inspect(t, root, func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		name := ""
		switch f := call.Fun.(type) {
		case *ast.SelectorExpr:
			name = f.Sel.Name
		case *ast.Ident:
			name = f.Name
		}
		from, isLog := first[name]
		if !isLog {
			return
		}
		for i := from; i < len(call.Args); i++ {
			if lit, ok := call.Args[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, _ := strconv.Unquote(lit.Value); regexp.MustCompile(`^[a-z_]+$`).MatchString(s) {
					keys = append(keys, s)
				}
				i++ // its value
			}
		}
	}, dirs...)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Literals returns the texts in the code of some packages.
func Literals(t *testing.T, dirs ...string) (out []string) {
	t.Helper()
	Inspect(t, root, func(n ast.Node) {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				out = append(out, s)
			}
		}
	}, dirs...)
	return out
}

// Inspect visits all of the code in some directories below root, without its tests.
func Inspect(t *testing.T, root string, visit func(ast.Node), dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(names) == 0 {
			t.Fatal(dir, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool { visit(n); return true })
		}
	}
}

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

// settings are the tables of a program's settings, one for each section.
func settings(table *config.Table) string {
	var b strings.Builder
	for _, section := range table.Sections {
		name := "`[" + section.Name + "]` "
		if section.Name == "" {
			name = ""
		}
		fmt.Fprintf(&b, "\n**%s%s**\n\n| key | default | flag | environment | meaning |\n| --- | --- | --- | --- | --- |\n", name, section.Help)
		for i := range table.Settings {
			s := &table.Settings[i]
			where, key, dotted := strings.Cut(s.Key, ".")
			if !dotted {
				where, key = "", s.Key
			}
			if where != section.Name {
				continue
			}
			var env []string
			for _, e := range s.Env {
				env = append(env, code(e.Name))
			}
			help := s.Help
			if len(s.Values) > 0 {
				help += " One of: " + strings.Join(s.Values, ", ") + "."
			}
			if s.Reload {
				help += " Takes effect on reload."
			}
			flag := ""
			if s.Flag != "" {
				flag = code("--" + s.Flag)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", code(key), code(s.Default), flag, strings.Join(env, ", "), strings.ReplaceAll(help, "|", `\|`))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
