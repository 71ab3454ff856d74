package man

import (
	"fmt"
	"strings"
)

// page builds a manual page with the macros of man(7), which groff and mandoc support.
// In its texts `this` is bold, for literal text, and <this> is in italics, for
// placeholders.
type page struct {
	b     strings.Builder
	fresh bool // nothing stands below the heading yet
}

// newPage starts the page NAME(SECTION). Words are not hyphenated, because most long
// words are names that are copied. The date is fixed, so that a page changes only with
// its text.
func newPage(name, section, group string) *page {
	p := &page{}
	fmt.Fprintf(&p.b, ".\\\" Written by make generate; changes belong into packaging/generate/man.\n.TH %s %s %s compute\\-daemons \"%s\"\n.nh\n.ad l\n",
		escape(strings.ToUpper(name)), section, edition, group)
	p.section("NAME")
	return p
}

// edition is when the texts of this package were last changed.
const edition = "2026-11-22"

// section starts a section.
func (p *page) section(title string) { p.heading(".SH ", title) }

// part starts a part of a section.
func (p *page) part(title string) { p.heading(".SS ", title) }

func (p *page) heading(request, title string) {
	p.b.WriteString(request + argument(title) + "\n")
	p.fresh = true
}

// text adds a paragraph.
func (p *page) text(text string) {
	if !p.fresh {
		p.b.WriteString(".PP\n")
	}
	p.fresh = false
	p.b.WriteString(fill(text))
}

// item adds a term with its explanation.
func (p *page) item(term, text string) {
	p.fresh = false
	p.b.WriteString(".TP\n" + guard(markup(term)) + "\n" + fill(text))
}

// also adds a paragraph to an item.
func (p *page) also(text string) { p.b.WriteString(".IP\n" + fill(text)) }

// items adds several items.
func (p *page) items(list []item) {
	for _, i := range list {
		p.item(i.term, i.text)
	}
}

type item struct{ term, text string }

// example adds a comment and its lines, which are not filled.
func (p *page) example(comment, lines string) {
	p.text(comment)
	p.b.WriteString(".PP\n.RS 4\n.nf\n") // .EX would bring the hyphens back
	for line := range strings.SplitSeq(strings.Trim(lines, "\n"), "\n") {
		p.b.WriteString(guard(escape(line)) + "\n")
	}
	p.b.WriteString(".fi\n.RE\n")
}

// lines adds a paragraph of lines that are not filled.
func (p *page) lines(lines ...string) {
	for i, line := range lines {
		if i > 0 {
			p.b.WriteString(".br\n")
		}
		p.b.WriteString(guard(markup(strings.TrimSpace(line))) + "\n")
	}
	p.fresh = false
}

// String returns the page.
func (p *page) String() string { return p.b.String() }

// fill breaks a text into lines for the source, which mandoc wants to be short. A reader
// fills them again.
func fill(text string) string {
	const most = 78
	var b strings.Builder
	line := ""
	flush := func() {
		if line != "" {
			b.WriteString(guard(line) + "\n")
		}
		line = ""
	}
	for word := range strings.FieldsSeq(markup(text)) {
		if line != "" && len(line)+1+len(word) > most {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	flush()
	return b.String()
}

// markup escapes a text and sets text between backquotes in bold and text between < and >
// in italics.
func markup(text string) string {
	var b strings.Builder
	for text != "" {
		i := strings.IndexAny(text, "`<")
		if i < 0 {
			break
		}
		closing, font := "`", "B"
		if text[i] == '<' {
			closing, font = ">", "I"
		}
		inner, rest, closed := strings.Cut(text[i+1:], closing)
		if !closed {
			break
		}
		b.WriteString(escape(text[:i]) + `\f` + font + escape(inner) + `\fR`)
		text = rest
	}
	return b.String() + escape(text)
}

// escape escapes the special characters of roff, and those that it would replace by
// typographic characters, which must not happen to text that is copied into a shell.
func escape(text string) string { return escapes.Replace(text) }

var escapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, `"`, `\(dq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`,
	"…", "...", "–", `\(en`, "·", `\(bu`)

// guard prevents that a line is read as a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

// argument quotes a text as one argument of a request.
func argument(text string) string {
	text = escape(text)
	if strings.Contains(text, " ") {
		text = `"` + text + `"`
	}
	return text
}
