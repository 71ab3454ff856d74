package main

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

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
)

const (
	root   = "../.."
	manual = root + "/docs/clientmountd.md"
)

func readManual(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The settings in the manual are those of the table; -update writes them.
func TestManualSettings(t *testing.T) {
	const begin, end = "<!-- settings: written by go test ./cmd/clientmountd -update -->\n", "<!-- end of settings -->\n"
	text := readManual(t)
	head, rest, ok1 := strings.Cut(text, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the manual has no place for the settings")
	}
	want := head + begin + settings(config.ClientmountdTable(new(config.Clientmountd))) + end + tail
	if want == text {
		return
	}
	if !*update {
		t.Fatal("the settings in docs/clientmountd.md are not those of the table: go test ./cmd/clientmountd -update")
	}
	if err := os.WriteFile(manual, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

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
			if where != section.Name || s.Hidden {
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

// Every kind of record has its row, with its id, and no row is of the past.
func TestManualEvents(t *testing.T) {
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| `([0-9a-f]{32})` \\|").FindAllStringSubmatch(readManual(t), -1) {
		rows[m[2]] = m[1]
	}
	for _, e := range append(clientmount.Events(), daemon.Events()...) {
		if rows[e.ID] != e.Name {
			t.Errorf("no row for | `%s` | `%s` |", e.Name, e.ID)
		}
		delete(rows, e.ID)
	}
	for id, name := range rows {
		t.Errorf("the row of %s, %s, is of no event", name, id)
	}
}

// Every step that can fail has its text in the reference of status.error.
func TestManualErrors(t *testing.T) {
	_, reference, _ := strings.Cut(readManual(t), "\n## What status.error says\n")
	reference, _, _ = strings.Cut(reference, "\n## ")
	seen := 0
	for _, s := range literals(t, "internal/volume", "internal/clientmount") {
		text, isStep := strings.CutPrefix(s, "unable to ")
		if !isStep {
			continue
		}
		seen++
		text, _, _ = strings.Cut(text, "%s")
		if !strings.Contains(reference, "unable to "+strings.TrimSpace(text)) {
			t.Errorf("%q is not explained", s)
		}
	}
	if seen < 14 {
		t.Errorf("only %d texts were found in the code", seen)
	}
}

// Every field of a record is in the manual's table.
func TestManualFields(t *testing.T) {
	_, table, _ := strings.Cut(readManual(t), "\n### Fields\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(table, -1)
	var known []string
	for _, m := range rows {
		known = append(known, m[1])
	}
	keys := logKeys(t, "internal/clientmount", "internal/kube", "internal/node", "internal/daemon", "cmd/clientmountd")
	for i, key := range keys {
		if key == "duration" { // the journal's name says the unit
			key, keys[i] = "duration_ms", "duration_ms"
		}
		if !slices.Contains(known, strings.ToUpper(key)) {
			t.Errorf("the field %s is not explained", strings.ToUpper(key))
		}
	}
	for _, k := range known {
		if !slices.Contains(keys, strings.ToLower(k)) && !slices.Contains([]string{"EVENT", "MESSAGE_ID"}, k) {
			t.Errorf("the field %s is in no record", k)
		}
	}
}

// logKeys finds the words that stand where a key of a log call stands.
func logKeys(t *testing.T, dirs ...string) []string {
	t.Helper()
	first := map[string]int{"With": 0, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3, "warn": 1}
	var keys []string
	eachFile(t, func(n ast.Node) {
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

// literals returns the texts in the code of some packages.
func literals(t *testing.T, dirs ...string) (out []string) {
	t.Helper()
	eachFile(t, func(n ast.Node) {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				out = append(out, s)
			}
		}
	}, dirs...)
	return out
}

func eachFile(t *testing.T, visit func(ast.Node), dirs ...string) {
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
