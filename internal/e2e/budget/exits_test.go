package budget

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
)

// The exit codes of a tool are unique and documented in one table, from which help,
// manual page and docs are generated. Common codes have the same meaning in all programs.
func TestExitCodes(t *testing.T) {
	if cli.ExitOK != daemon.ExitOK || cli.ExitFailed != daemon.ExitFailure || cli.ExitUsage != daemon.ExitUsage {
		t.Error("the exit codes of tools and daemons differ")
	}
	for name, exits := range map[string][]cli.Exit{dmctl.Name: dmctl.Program.Exits, deploy.Name: deploy.Program.Exits} {
		last, meanings := -1, map[string]bool{}
		for _, e := range exits {
			if e.Code <= last || e.Code > 255 || e.Meaning == "" || meanings[e.Meaning] {
				t.Errorf("%s: exit code %d is out of order, repeated or not documented", name, e.Code)
			}
			last, meanings[e.Meaning] = e.Code, true
		}
		for code := range cli.ExitUsage + 1 {
			if code >= len(exits) || exits[code].Code != code {
				t.Errorf("%s does not document exit code %d", name, code)
			}
		}
	}
}

// Each package defines its exit codes in one file, and os.Exit is called with these
// constants, not with numbers, so that all codes have a name and documentation.
func TestExitCodesHaveNames(t *testing.T) {
	for _, p := range packages(t) {
		if strings.Contains(p.ImportPath, "/e2e") || strings.Contains(p.ImportPath, "fake") {
			continue
		}
		constants := map[string]bool{}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.ValueSpec:
					if strings.HasPrefix(n.Names[0].Name, "Exit") && len(n.Values) > 0 {
						constants[name] = true
					}
				case *ast.CallExpr:
					if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Exit" && len(n.Args) == 1 && strings.HasPrefix(p.ImportPath, module+"/cmd/") {
						if _, literal := n.Args[0].(*ast.BasicLit); literal {
							t.Errorf("%s: %s calls Exit with a number", p.ImportPath, name)
						}
					}
				}
				return true
			})
		}
		if len(constants) > 1 {
			t.Errorf("%s has exit codes in several files: %v", p.ImportPath, constants)
		}
	}
}
