package require

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../../.."

// installed are the programs that every supported machine has: no target installs them.
var installed = []string{"bash", "mount"}

// provided maps a program to another one of the same package, which the Makefile names.
var provided = map[string]string{"ssh-keygen": "ssh", "/usr/sbin/sshd": "sshd"}

// Each program that a test requires is installed by a target of the Makefile. Without that,
// make test fails on a fresh machine where E2E_REQUIRE is set.
func TestTools(t *testing.T) {
	need := targets(t)
	seen := 0
	for path, names := range calls(t) {
		lists := slices.Concat(installed, need["need-lint"], need["need-test"])
		if strings.HasPrefix(path, "internal/e2e/packages/") || strings.HasPrefix(path, "internal/e2e/machine/") {
			lists = slices.Concat(lists, need["need-packages"], need["need-e2e"])
		}
		for _, name := range names {
			seen++
			if other, ok := provided[name]; ok {
				name = other
			}
			if !slices.Contains(lists, name) {
				t.Errorf("%s requires %s, which no target of the Makefile installs before the test runs", path, name)
			}
		}
	}
	if seen < 10 {
		t.Errorf("found only %d required programs: the search is wrong", seen)
	}
}

// targets returns the programs that each need-* target of the Makefile installs.
func targets(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^(need-[a-z0-9]+):.*\n\t(.*need\.sh .*)`).FindAllStringSubmatch(string(text), -1) {
		_, list, _ := strings.Cut(m[2], "need.sh ")
		out[m[1]] = regexp.MustCompile(`[\w.-]+`).FindAllString(list, -1)
	}
	if len(out["need-test"]) == 0 || len(out["need-lint"]) == 0 || len(out["need-packages"]) == 0 {
		t.Fatalf("the Makefile has other targets: %v", out)
	}
	return out
}

// calls returns the arguments of all calls of Tool, by file. They must be literals.
func calls(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	goFiles(t, func(path, text string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || f.Sel.Name != "Tool" {
				return true
			}
			if x, ok := f.X.(*ast.Ident); !ok || x.Name != "require" {
				return true
			}
			for _, arg := range call.Args[1:] {
				lit, ok := arg.(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: an argument of require.Tool is not a literal", path)
					continue
				}
				name, _ := strconv.Unquote(lit.Value)
				out[path] = append(out[path], name)
			}
			return true
		})
	})
	return out
}

// Only this package reads the variable, so that all tests treat it alike.
func TestVariableIsReadHere(t *testing.T) {
	goFiles(t, func(path, text string) {
		if !strings.HasPrefix(path, "internal/e2e/require/") && strings.Contains(text, `os.Getenv("`+Var+`")`) {
			t.Errorf("%s reads %s: use package require", path, Var)
		}
	})
}

// goFiles calls f with each Go file of the repository and its path in it.
func goFiles(t *testing.T, f func(path, text string)) {
	t.Helper()
	for _, top := range []string{"cmd", "internal", "packaging", "systemd"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(path)
			f(rel, string(text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
