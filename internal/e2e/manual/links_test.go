package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/packaging"
)

var (
	inlineLink    = regexp.MustCompile(`\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]*)>?(?:\s+"[^"]*")?\s*\)`)
	referenceLink = regexp.MustCompile(`(?m)^\[[^\]]+\]:\s*(\S+)`)
	heading       = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*\s*$`)
	ownAddress    = regexp.MustCompile(`^https?://github\.com/compute-daemons/compute-daemons/(blob|tree|raw)/`)
)

// documents calls f with each Markdown file of the repository.
func documents(t *testing.T, f func(path, text string)) {
	t.Helper()
	n := 0
	walk(t, func(path string, data []byte) {
		if filepath.Ext(path) == ".md" {
			n++
			f(path, string(data))
		}
	})
	if n < 10 {
		t.Errorf("only %d documents read", n)
	}
}

// Each relative link of a document goes to a file, and each fragment to a heading of it. Links
// into the repository are relative.
func TestLinks(t *testing.T) {
	anchors := map[string][]string{}
	documents(t, func(path, text string) { anchors[path] = headings(text) })
	documents(t, func(path, text string) {
		text = withoutCode(text)
		for _, re := range []*regexp.Regexp{inlineLink, referenceLink} {
			for _, m := range re.FindAllStringSubmatchIndex(text, -1) {
				link := text[m[2]:m[3]]
				if problem := broken(path, link, anchors); problem != "" {
					t.Errorf("%s:%d: (%s): %s", path, 1+strings.Count(text[:m[0]], "\n"), link, problem)
				}
			}
		}
	})
}

// broken returns what is wrong with a link in a document.
func broken(path, link string, anchors map[string][]string) string {
	switch {
	case ownAddress.MatchString(link):
		return "a link into the repository must be relative"
	case regexp.MustCompile(`^[a-z]+:`).MatchString(link):
		return "" // another site
	case strings.HasPrefix(link, "/"):
		return "a link must be relative"
	}
	target, fragment, hasFragment := strings.Cut(link, "#")
	file := path
	if target != "" {
		file = filepath.Join(filepath.Dir(path), target)
	}
	if _, err := os.Stat(filepath.Join(repository, file)); err != nil || strings.HasPrefix(file, "..") {
		return "no such file"
	}
	if hasFragment && !slices.Contains(anchors[file], fragment) {
		return fmt.Sprintf("%s has no such heading", file)
	}
	return ""
}

// headings returns the fragments of a document's headings, by the rules of GitHub.
func headings(text string) (out []string) {
	count := map[string]int{}
	for line := range strings.Lines(withoutFences(text)) {
		m := heading.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		title := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		var b strings.Builder
		for _, r := range strings.ToLower(title) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsNumber(r):
				b.WriteRune(r)
			}
		}
		fragment := b.String()
		if n := count[fragment]; n > 0 {
			fragment = fmt.Sprintf("%s-%d", fragment, n)
		}
		count[b.String()]++
		out = append(out, fragment)
	}
	return out
}

func TestHeadings(t *testing.T) {
	got := headings("# Install and upgrade\n\n## `status.error`: what, why?\n```sh\n# no heading\n```\n## The [guide](x.md)\n### twice\n### Twice ###\n## a_b & c-d\n")
	want := []string{"install-and-upgrade", "statuserror-what-why", "the-guide", "twice", "twice-1", "a_b--c-d"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestBrokenLinks(t *testing.T) {
	anchors := map[string][]string{"README.md": {"tests"}, "docs/security.md": {"what"}}
	for link, want := range map[string]string{
		"#tests": "", "docs/security.md": "", "docs/security.md#what": "", "LICENSE": "", "docs": "", "https://example.org/x.md#y": "",
		"#nothing": "README.md has no such heading", "docs/security.md#tests": "docs/security.md has no such heading",
		"docs/nothing.md": "no such file", "../README.md": "no such file", "/docs/security.md": "a link must be relative",
		"https://github.com/compute-daemons/compute-daemons/blob/main/README.md": "a link into the repository must be relative",
	} {
		if got := broken("README.md", link, anchors); got != want {
			t.Errorf("%s: %q, want %q", link, got, want)
		}
	}
	if got := inlineLink.FindAllStringSubmatch("[a](b.md) and [`c` [d]](e.md#f) and [g]( <h.md> \"title\" )", -1); len(got) != 3 || got[0][1] != "b.md" || got[1][1] != "e.md#f" || got[2][1] != "h.md" {
		t.Errorf("%q", got)
	}
}

// withoutFences blanks the fenced blocks of a document, and withoutCode inline code, too.
func withoutFences(text string) string {
	var b strings.Builder
	fence := ""
	for line := range strings.Lines(text) {
		mark := regexp.MustCompile("^\\s*(```+|~~~+)").FindStringSubmatch(line)
		switch {
		case fence == "" && mark != nil:
			fence = mark[1]
			b.WriteByte('\n')
		case fence != "":
			if mark != nil && strings.TrimSpace(line) == fence {
				fence = ""
			}
			b.WriteByte('\n')
		default:
			b.WriteString(line)
		}
	}
	return b.String()
}

func withoutCode(text string) string { return inlineCode.ReplaceAllString(withoutFences(text), "") }

// prose lines end at this column; tables, code and the targets of links may be wider.
const width = 100

// Lines of prose are at most 100 columns wide.
func TestWidthOfProse(t *testing.T) {
	documents(t, func(path, text string) {
		n := 0
		for line := range strings.Lines(withoutFences(text)) {
			n++
			if tooWide(line) {
				t.Errorf("%s:%d: %d columns: wrap at %d", path, n, utf8.RuneCountInString(line)-1, width)
			}
		}
	})
}

func tooWide(line string) bool {
	trimmed := strings.TrimSpace(line)
	if strings.HasPrefix(trimmed, "|") || strings.HasPrefix(trimmed, "<!--") || strings.HasPrefix(line, "    ") && !strings.HasPrefix(trimmed, "- ") {
		return false
	}
	line = linkTarget.ReplaceAllString(strings.TrimRight(line, "\n"), "]")
	return utf8.RuneCountInString(line) > width && strings.Contains(strings.TrimSpace(line), " ")
}

func TestTooWide(t *testing.T) {
	long := strings.Repeat("word ", 21)
	for line, want := range map[string]bool{
		"short\n": false, long + "\n": true, "| " + long + "|\n": false, "    " + long + "\n": false, "<!-- " + long + "-->\n": false,
		"[text](" + strings.Repeat("x", 100) + ") and more\n": false, strings.Repeat("ä", 51) + " " + strings.Repeat("ö", 48) + "\n": false, "- " + long + "\n": true,
	} {
		if got := tooWide(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

// A mention is the name of a document in another text, for example docs/security.md or
// security.md, or a path of an installed document.
var (
	mention   = regexp.MustCompile(`(?:/usr/share/doc/([a-z-]+)/|\bdocs/)?\b((?:reference/)?[A-Za-z][A-Za-z-]*\.md)\b`)
	installed = regexp.MustCompile(`/usr/share/doc/((?:clientmountd|nnf-dm|nnf-deploy)(?:/[A-Za-z0-9_./-]*[A-Za-z0-9_-])?)`)
	page      = regexp.MustCompile(`\b((?:clientmountd|nnf-[a-z]+)(?:\.toml)?)\(([1-8])\)`)
)

// shippers names the packages that have the code of a program.
func shippers(path string) []string {
	for prefix, packages := range map[string][]string{
		"cmd/clientmountd/": {"clientmountd"}, "internal/clientmount/": {"clientmountd"},
		"cmd/nnf-dm/": {"nnf-dm"}, "cmd/nnf-dmctl/": {"nnf-dm"}, "internal/datamovement/": {"nnf-dm"}, "internal/cli/dmctl/": {"nnf-dm"},
		"cmd/nnf-deploy/": {"nnf-deploy"}, "internal/cli/deploy/": {"nnf-deploy"}, "internal/deploy/": {"nnf-deploy"},
		"internal/daemon/": {"clientmountd", "nnf-dm"},
	} {
		if strings.HasPrefix(path, prefix) {
			return packages
		}
	}
	return nil
}

// Documents, manual pages and installed files that a text names exist. A text that is in a
// package names only documents that the package has.
func TestMentions(t *testing.T) {
	packages, err := packaging.Packages(filepath.Join(repository, "nfpm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ships := map[string][]string{}              // source -> packages
	documentsOf := map[string]map[string]bool{} // package -> documents
	paths := map[string]bool{}                  // below /usr/share/doc
	for _, p := range packages {
		documentsOf[p.Name] = map[string]bool{}
		for _, c := range p.Contents {
			ships[c.Source] = append(ships[c.Source], p.Name)
			if path, ok := strings.CutPrefix(c.Destination, "/usr/share/doc/"); ok {
				paths[path] = true
			}
			if strings.HasSuffix(c.Source, ".md") {
				documentsOf[p.Name][strings.TrimPrefix(c.Source, "docs/")] = true
			}
		}
	}
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(repository, path))
		return err == nil
	}
	mentions := 0
	check := func(path, text string, in []string) {
		at := func(i int) string { return fmt.Sprintf("%s:%d", path, 1+strings.Count(text[:i], "\n")) }
		for _, m := range installed.FindAllStringSubmatchIndex(text, -1) {
			if name := text[m[2]:m[3]]; !paths[name] {
				t.Errorf("%s: no package has /usr/share/doc/%s", at(m[0]), name)
			}
		}
		for _, m := range page.FindAllStringSubmatchIndex(text, -1) {
			if name := text[m[2]:m[3]] + "." + text[m[4]:m[5]]; !exists("packaging/man/" + name) {
				t.Errorf("%s: there is no manual page %s", at(m[0]), name)
			}
		}
		if filepath.Ext(path) == ".md" {
			return // TestLinks
		}
		for _, m := range mention.FindAllStringSubmatchIndex(text, -1) {
			name := text[m[4]:m[5]]
			mentions++
			if !exists("docs/"+name) && !exists(name) {
				t.Errorf("%s: there is no document %s", at(m[0]), name)
				continue
			}
			for _, p := range in {
				if !documentsOf[p][name] {
					t.Errorf("%s: the text is in the package %s, which does not have %s", at(m[0]), p, name)
				}
			}
		}
	}
	texts(t, func(path, text string) {
		in := ships[path]
		switch {
		case strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/testdata/") || strings.HasPrefix(path, "internal/e2e/") || strings.HasPrefix(path, "packaging/generate/catalog/"):
			return
		case strings.HasSuffix(path, ".catalog"):
			line := 0
			for entry := range strings.SplitSeq(text, "\n-- ") {
				for _, p := range in {
					if strings.Contains(entry, "Documentation: man:"+p+"(8)") {
						check(path, strings.Repeat("\n", line)+entry, []string{p})
					}
				}
				line += 1 + strings.Count(entry, "\n")
			}
			return
		case path == "nfpm.yaml" || path == ".goreleaser.yaml":
			return
		case in == nil:
			in = shippers(path)
		}
		check(path, text, in)
	})
	if mentions == 0 {
		t.Error("no document is named in any text")
	}
}
