// Package manual has the parts of tests that compare documents with the code of the
// programs. Its callers are the tests of the document generators. Its own tests read all
// texts of the repository: discouraged phrases, links, line width, commands in guides.
//
// It must not know what a program does.
package manual

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// LogKeys returns the keys of the log calls in some directories below root, sorted.
func LogKeys(t *testing.T, root string, dirs ...string) []string {
	t.Helper()
	first := map[string]int{"With": 0, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3, "warn": 1, "Started": 1}
	key := regexp.MustCompile(`^[a-z_]+$`)
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
				if s, _ := strconv.Unquote(lit.Value); key.MatchString(s) {
					keys = append(keys, s)
				}
				i++ // its value
			}
		}
	}, dirs...)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Literals returns the string literals in the code of some directories below root.
func Literals(t *testing.T, root string, dirs ...string) (out []string) {
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
