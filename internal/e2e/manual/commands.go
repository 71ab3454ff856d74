package manual

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A Block is a fenced block of a page.
type Block struct {
	Line    int    // of the opening fence, from 1
	Comment string // the line before it
	Text    string // without indentation
}

// Blocks returns the fenced blocks of a page in a language, in their order.
func Blocks(page, language string) (out []Block) {
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		indent, rest, ok := strings.Cut(lines[i], "```")
		if !ok || strings.TrimSpace(indent) != "" {
			continue
		}
		b := Block{Line: i + 1}
		if i > 0 {
			b.Comment = strings.TrimSpace(lines[i-1])
		}
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
			b.Text += strings.TrimPrefix(lines[i], indent) + "\n"
		}
		if strings.TrimSpace(rest) == language {
			out = append(out, b)
		}
	}
	return out
}

// Commands returns the blocks of commands of a page that name a test as the one that runs
// them, in the order of the page. There is at least one. root is the top of the repository,
// test has the form "internal/e2e/PACKAGE TestName".
func Commands(t *testing.T, root, page, test string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range Blocks(string(text), "sh") {
		if b.Comment == "<!-- tested by "+test+" -->" {
			blocks = append(blocks, b.Text)
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no block of commands for %s", page, test)
	}
	return blocks
}

// A Set has the blocks of commands that a test runs, by page.
type Set map[string][]string

// Take returns the first block of a page that contains part, and removes it from the set.
func (s Set) Take(t *testing.T, page, part string) string {
	t.Helper()
	i := slices.IndexFunc(s[page], func(b string) bool { return strings.Contains(b, part) })
	if i < 0 {
		t.Fatalf("%s has no block of commands with %q that names this test and has not run", page, part)
	}
	block := s[page][i]
	s[page] = slices.Concat(s[page][:i], s[page][i+1:])
	return block
}
