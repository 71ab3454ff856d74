package man

import (
	"fmt"
	"strings"
)

// page is a manual page in the making, in the macros of man(7), which both groff
// and mandoc know. In its texts `this` is bold, for what is typed as it stands,
// and <this> is in italics, for what stands for something else.
type page struct {
	b     strings.Builder
	fresh bool // nothing stands below the heading yet
}

// newPage begins the page NAME(SECTION). Words are not hyphenated, because most
// of the long ones are names that people copy. The date is fixed: a page that nobody
// changed must not differ.
func newPage(name, section, group string) *page {
	p := &page{}
	fmt.Fprintf(&p.b, ".\\\" Written by make generate; changes belong into packaging/generate/man.\n.TH %s %s %s compute\\-daemons \"%s\"\n.nh\n.ad l\n",
		escape(strings.ToUpper(name)), section, edition, group)
	p.section("NAME")
	return p
}

// edition is when the texts of this package were last changed.
const edition = "2026-11-22"

// section begins a section.
func (p *page) section(title string) { p.heading(".SH ", title) }

// part begins a part of a section.
func (p *page) part(title string) { p.heading(".SS ", title) }

func (p *page) heading(request, title string) {
	p.b.WriteString(request + argument(title) + "\n")
	p.fresh = true
}

// text is a paragraph.
func (p *page) text(text string) {
	if !p.fresh {
		p.b.WriteString(".PP\n")
	}
	p.fresh = false
	p.b.WriteString(fill(text))
}

// item is a term with its explanation.
func (p *page) item(term, text string) {
	p.fresh = false
	p.b.WriteString(".TP\n" + guard(markup(term)) + "\n" + fill(text))
}

// also is a further paragraph of an item.
func (p *page) also(text string) { p.b.WriteString(".IP\n" + fill(text)) }

// items are several.
func (p *page) items(list []item) {
	for _, i := range list {
		p.item(i.term, i.text)
	}
}

type item struct{ term, text string }

// example is a comment and the lines that it is about, which are shown as they are.
func (p *page) example(comment, lines string) {
	p.text(comment)
	p.b.WriteString(".PP\n.RS 4\n.nf\n") // .EX would bring the hyphens back
	for line := range strings.SplitSeq(strings.Trim(lines, "\n"), "\n") {
		p.b.WriteString(guard(escape(line)) + "\n")
	}
	p.b.WriteString(".fi\n.RE\n")
}

// lines are a paragraph of lines that are not filled.
func (p *page) lines(lines ...string) {
	for i, line := range lines {
		if i > 0 {
			p.b.WriteString(".br\n")
		}
		p.b.WriteString(guard(markup(strings.TrimSpace(line))) + "\n")
	}
	p.fresh = false
}

// String is the page.
func (p *page) String() string { return p.b.String() }

// fill breaks a text into lines for the source; the reader's terminal does it
// anew. mandoc wants them short.
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

// markup escapes a text and sets what stands between backquotes in bold, what
// stands between < and > in italics.
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

// escape takes the meaning from what roff would understand, and keeps it from
// making typographic characters of what people copy into a shell.
func escape(text string) string { return escapes.Replace(text) }

var escapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, `"`, `\(dq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`,
	"…", "...", "–", `\(en`, "·", `\(bu`)

// guard keeps a line from being a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

// argument is a text as one word of a request.
func argument(text string) string {
	text = escape(text)
	if strings.Contains(text, " ") {
		text = `"` + text + `"`
	}
	return text
}
