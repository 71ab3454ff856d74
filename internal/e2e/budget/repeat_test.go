package budget

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sources calls f for each Go file of the programs and of the packaging, without generated
// files and tests.
func sources(t *testing.T, f func(pkg string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if strings.HasPrefix(name, "internal/e2e") {
			continue
		}
		for _, path := range p.GoFiles {
			if strings.HasSuffix(path, ".pb.go") {
				continue
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, path), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			f(name, set, file)
		}
	}
}

// No two packages have a function with the same body: it belongs in a lower layer. Bodies
// of one line are ignored.
func TestNoFunctionBodyTwice(t *testing.T) {
	places := map[string]map[string]string{} // body -> package -> function
	sources(t, func(pkg string, set *token.FileSet, file *ast.File) {
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			var body bytes.Buffer
			if err := printer.Fprint(&body, set, fn.Body); err != nil {
				t.Fatal(err)
			}
			if strings.Count(body.String(), "\n") < 3 {
				continue
			}
			if places[body.String()] == nil {
				places[body.String()] = map[string]string{}
			}
			places[body.String()][pkg] = fn.Name.Name
		}
	})
	if len(places) < 500 {
		t.Fatalf("only %d functions read", len(places))
	}
	for _, in := range places {
		if len(in) > 1 {
			var list []string
			for _, p := range slices.Sorted(maps.Keys(in)) {
				list = append(list, p+"."+in[p])
			}
			t.Errorf("the same body in %s: keep one, in a package that the others may import", strings.Join(list, ", "))
		}
	}
}

// systemPath matches a path on a compute node. If several programs use it, they must use
// the same constant.
var systemPath = regexp.MustCompile(`^/(?:etc|run|var|usr/lib/systemd)/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$`)

// Each path on a compute node is defined in one package, as a constant or in a table.
func TestPathsAreDefinedOnce(t *testing.T) {
	in := map[string]map[string]bool{} // path -> packages
	sources(t, func(pkg string, set *token.FileSet, file *ast.File) {
		if strings.HasPrefix(pkg, "packaging/generate") {
			return // the text of manual pages
		}
		ast.Inspect(file, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return true
			}
			s, err := strconv.Unquote(l.Value)
			if err == nil && systemPath.MatchString(s) {
				if in[s] == nil {
					in[s] = map[string]bool{}
				}
				in[s][pkg] = true
			}
			return true
		})
	})
	if len(in) < 10 {
		t.Fatalf("only %d paths found", len(in))
	}
	for _, p := range slices.Sorted(maps.Keys(in)) {
		if len(in[p]) > 1 {
			t.Errorf("%s is defined in %s: keep one constant", p, strings.Join(slices.Sorted(maps.Keys(in[p])), ", "))
		}
	}
}
