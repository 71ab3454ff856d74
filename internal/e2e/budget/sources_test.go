package budget

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pkg is the output of go list for a package.
type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) (list []pkg) {
	t.Helper()
	out, err := command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports", module+"/...")
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < len(imports) {
		t.Fatalf("only %d packages", len(list))
	}
	return list
}

// Every package has a package comment.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue // only tests
		}
		doc := ""
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			doc += file.Doc.Text()
		}
		name := p.Name // not the directory: v2 contains package datamovementv2
		if p.Name == "main" {
			name = filepath.Base(p.ImportPath)
		}
		if !strings.HasPrefix(doc, "Package "+name) && !strings.HasPrefix(doc, "Command "+name) && !strings.HasPrefix(doc, "Program "+name) {
			t.Errorf("%s has no package comment: %.60q", p.ImportPath, doc)
		}
	}
}

// Every exported name has a comment.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if name, _ := strings.CutPrefix(p.ImportPath, module+"/internal/"); imports[name] == "" && name != "node" && name != "config" && name != "daemon" {
			continue
		}
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.IsExported() && d.Doc == nil {
						t.Errorf("%s: %s has no comment", p.ImportPath, d.Name)
					}
				case *ast.GenDecl:
					for _, s := range d.Specs {
						if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
							t.Errorf("%s: %s has no comment", p.ImportPath, s.Name)
						}
					}
				}
			}
		}
	}
}

// Every package has only permitted imports.
func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name, ok := strings.CutPrefix(p.ImportPath, module+"/internal/")
		if !ok || strings.HasPrefix(name, "e2e") {
			continue
		}
		may, known := imports[name]
		if !known {
			t.Errorf("%s is not listed: add its permitted imports to links.go", name)
			continue
		}
		seen[name] = true
		for _, i := range p.Imports {
			if used, ok := strings.CutPrefix(i, module+"/internal/"); ok && !contains(may, used) {
				t.Errorf("%s must not import %s", name, used)
			}
		}
	}
	for name := range imports {
		if !seen[name] {
			t.Errorf("links.go lists %s, which does not exist", name)
		}
	}
}

// wallClock lists the files of the daemons that convert times to Unix times, and why.
var wallClock = map[string]string{
	"clientmount/exposition.go": "the metrics have Unix times",
}

// The daemons measure time with the monotonic clock, which does not change when the system clock is
// set: they do not calculate with Unix times. Reports may have them.
func TestMonotonicTime(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/internal/")
		if top, _, _ := strings.Cut(name, "/"); !contains("clientmount daemon datamovement kube node unixsocket", top) {
			continue
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			parsed, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			seen[name] = true
			ast.Inspect(parsed, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) != 0 {
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !contains("Unix UnixMicro UnixMilli UnixNano", method.Sel.Name) {
					return true
				}
				if path := name + "/" + file; wallClock[path] == "" {
					t.Errorf("%s: %s() depends on the system clock: use time.Since, or list the file with the reason", fset.Position(n.Pos()), method.Sel.Name)
				} else {
					seen[path] = true
				}
				return true
			})
		}
	}
	for path := range wallClock {
		if !seen[path] {
			t.Errorf("%s is listed, but has no Unix time", path)
		}
	}
	if !seen["kube"] || !seen["unixsocket"] {
		t.Errorf("only these packages were checked: %v", seen)
	}
}

func contains(list, name string) bool { return strings.Contains(" "+list+" ", " "+name+" ") }

// Every MESSAGE_ID in the code is unique, and is in the message catalogue of the journal
// (https://systemd.io/CATALOG/).
func TestMessageIDs(t *testing.T) {
	catalogue, err := os.ReadFile("../../../packaging/catalog/compute-daemons.catalog")
	if err != nil {
		t.Fatal(err)
	}
	owner := map[string]string{}
	for _, p := range packages(t) {
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				kv, ok := n.(*ast.KeyValueExpr)
				if !ok {
					return true
				}
				key, ok1 := kv.Key.(*ast.Ident)
				value, ok2 := kv.Value.(*ast.BasicLit)
				if !ok1 || !ok2 || key.Name != "ID" {
					return true
				}
				id := strings.Trim(value.Value, `"`)
				if len(id) != 32 { // not a MESSAGE_ID, see daemon.Event.Valid
					return true
				}
				if owner[id] != "" {
					t.Errorf("%s and %s have the MESSAGE_ID %s", owner[id], p.ImportPath, id)
				}
				owner[id] = p.ImportPath
				if n := strings.Count(string(catalogue), "\n-- "+id+"\n"); n != 1 {
					t.Errorf("the MESSAGE_ID %s of %s is in the catalogue %d times", id, p.ImportPath, n)
				}
				return true
			})
		}
	}
	if len(owner) < 30 {
		t.Errorf("only %d MESSAGE_IDs were found", len(owner))
	}
}
