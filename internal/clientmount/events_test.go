package clientmount

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
)

// Sites search and alert by these: each is valid, stands for one thing only,
// and is in the list that documentation and catalogue are checked against.
func TestEvents(t *testing.T) {
	ids, names := map[string]bool{}, map[string]string{}
	for _, e := range append(Events(), daemon.Events()...) {
		if !e.Valid() {
			t.Errorf("%+v is not valid", e)
		}
		if ids[e.ID] {
			t.Errorf("the id of %q is used twice", e.Name)
		}
		ids[e.ID] = true
		// A panic is one kind of trouble wherever it is caught, but caught in
		// two ways.
		if old, twice := names[e.Name]; twice && e.Name != "panic" {
			t.Errorf("the name %q has two ids: %s, %s", e.Name, old, e.ID)
		}
		names[e.Name] = e.ID
	}
	file, err := parser.ParseFile(token.NewFileSet(), "report.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, s := range g.Specs {
				if strings.HasPrefix(strings.ToLower(s.(*ast.ValueSpec).Names[0].Name), "event") {
					declared++
				}
			}
		}
	}
	if n := len(Events()); n != declared {
		t.Errorf("Events lists %d of %d", n, declared)
	}
}
