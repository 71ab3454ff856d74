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

// Inspect visits all of the code in some folders below root, without its tests.
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
