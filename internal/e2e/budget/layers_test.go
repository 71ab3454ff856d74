package budget

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// layers reads the table of packages in ARCHITECTURE.md. It returns the row of each
// top-level package of internal/ and of cmd, counted from the highest. Packages are
// listed as `name` or `name/*`.
func layers(t *testing.T) (row map[string]int, across map[int]bool) {
	t.Helper()
	data, err := os.ReadFile(root + "/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(data), "| layer | packages | contents |\n")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no table of layers")
	}
	row, across = map[string]int{}, map[int]bool{}
	name := regexp.MustCompile("`([a-z0-9]+)[a-z0-9/*]*`")
	n, below := 0, false
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			break
		}
		if strings.Contains(cells[1], "---") {
			continue
		}
		n++
		for _, m := range name.FindAllStringSubmatch(cells[2], -1) {
			row[m[1]] = n
		}
		across[n] = below // packages in rows below daemon may import each other
		below = below || row["daemon"] == n
	}
	if row["cmd"] != 1 || row["text"] == 0 || row["daemon"] == 0 {
		t.Fatalf("the table in ARCHITECTURE.md is not as expected: %v", row)
	}
	return row, across
}

// Packages import only packages of lower rows of the table in ARCHITECTURE.md, and every
// package has a row. Fakes may import test code.
func TestLayers(t *testing.T) {
	row, across := layers(t)
	of := func(path string) string {
		rest, ok := strings.CutPrefix(path, module+"/")
		if !ok {
			return ""
		}
		rest = strings.TrimPrefix(rest, "internal/")
		first, _, _ := strings.Cut(rest, "/")
		return first
	}
	used := map[string]bool{}
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.ImportPath, module+"/internal/") && !strings.HasPrefix(p.ImportPath, module+"/cmd/") || of(p.ImportPath) == "e2e" {
			continue
		}
		from := of(p.ImportPath)
		if row[from] == 0 {
			t.Errorf("%s has no row in the table of ARCHITECTURE.md", p.ImportPath)
			continue
		}
		used[from] = true
		for _, i := range p.Imports {
			to := of(i)
			if !strings.HasPrefix(i, module+"/internal/") || to == from || to == "e2e" && strings.HasPrefix(filepath.Base(p.ImportPath), "fake") {
				continue
			}
			if row[to] < row[from] || row[to] == row[from] && !across[row[from]] {
				t.Errorf("%s imports %s, which is not below it in ARCHITECTURE.md", p.ImportPath, i)
			}
		}
	}
	for name := range row {
		if !used[name] {
			t.Errorf("ARCHITECTURE.md has a row for %s, which does not exist", name)
		}
	}
}
