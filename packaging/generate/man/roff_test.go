package man

import (
	"strings"
	"testing"
)

func TestMarkup(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                   "plain",
		"`--log-level` <LEVEL>":   `\fB\-\-log\-level\fR \fILEVEL\fR`,
		"`a` and `b`":             `\fBa\fR and \fBb\fR`,
		"`open":                   `\(gaopen`,
		"1 < 2":                   "1 < 2",
		`C:\n is "it's" ^ ~`:      `C:\en is \(dqit\(aqs\(dq \(ha \(ti`,
		"… – `preActivate[0]`, …": `... \(en \fBpreActivate[0]\fR, ...`,
	} {
		if got := markup(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A line of text that starts like a request must stay text.
func TestGuard(t *testing.T) {
	p := newPage("x", "1", "Tests")
	p.text(".SH is a request, and 'br is one")
	p.text(strings.Repeat("word ", 14) + ".nnf-servers.json at the beginning of a line")
	p.example("See:", ".hidden\n'quoted'\nx")
	p.item("`.file`", "text")
	for line := range strings.SplitSeq(p.String(), "\n") {
		if len(line) > 80 {
			t.Errorf("a long line: %q", line)
		}
		if !strings.HasPrefix(line, ".") {
			continue
		}
		request, _, _ := strings.Cut(line, " ")
		switch request {
		case `.\"`, ".TH", ".SH", ".PP", ".TP", ".nf", ".fi", ".RS", ".RE", ".nh", ".ad":
		default:
			t.Errorf("%q became a request", line)
		}
		if request == ".SH" && line != ".SH NAME" {
			t.Errorf("%q became a request", line)
		}
	}
	for _, want := range []string{"\n\\&.SH is", "\n\\&.nnf\\-servers.json", "\n\\&.hidden\n", "\n\\(aqquoted\\(aq\n", "\n\\fB.file\\fR\n"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("no %q in\n%s", want, p)
		}
	}
}

func TestArgument(t *testing.T) {
	for in, want := range map[string]string{"NAME": "NAME", "EXIT STATUS": `"EXIT STATUS"`, `a "b"`: `"a \(dqb\(dq"`} {
		if got := argument(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
