package man

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
)

// program is the page of a daemon, in section 8.
func (d *daemon) program(kinds []catalog.Kind) string {
	t := d.table
	p := newPage(d.name(), "8", "System Administration")
	p.text(d.name() + ` - ` + d.lead)
	p.section("SYNOPSIS")
	var usage []string
	for _, c := range synopsis(t) {
		usage = append(usage, c.usage(d.name()))
	}
	p.lines(usage...)
	p.section("DESCRIPTION")
	p.text(t.Summary)
	for _, text := range d.description {
		p.text(text)
	}
	p.section("COMMANDS")
	for _, line := range synopsis(t) {
		for _, c := range line.each() {
			text := d.commands[c.words]
			if text == "" {
				text = sentence(c.does)
			}
			p.item(c.usage(d.name()), text)
		}
	}
	d.options(p)
	p.section("FILES")
	p.items(d.files)
	p.section("ENVIRONMENT")
	p.text("An empty value counts as absent. A flag wins over the environment, which wins over the file.")
	p.items(environments(t))
	p.items(d.environment)
	p.section("SIGNALS")
	p.items(d.signals)
	p.section("EXIT STATUS")
	p.items(d.exits)
	p.section("EXAMPLES")
	for _, e := range d.examples {
		p.example(e.comment, e.lines)
	}
	p.section("JOURNAL")
	p.text("Under systemd the daemon writes to the journal with fields; on a terminal in colours; else as text. `journalctl -x` shows with each record what happened, what it means for the job, and what to do.")
	for _, e := range d.journal {
		p.example(e.comment, e.lines)
	}
	p.text("The kinds of records, by their `EVENT` and `MESSAGE_ID`, which never change their meaning:")
	records(p, kinds)
	seeAlso(p, append([]string{d.name() + ".toml(5)"}, d.also...)...)
	return p.String()
}

// options are the flags by section, as in the help.
func (d *daemon) options(p *page) {
	t := d.table
	p.section("OPTIONS")
	p.text("Flags take `--flag` <value>, `--flag=`<value>, and one dash instead of two. They win over the environment, which wins over the file.")
	p.item("`--config` <FILE>", "The configuration file, with config.d beside it. Default: `"+t.File+"`.")
	p.item("`-h`, `--help`", "Print the help and end.")
	for _, section := range t.Sections {
		begun := false
		for i := range t.Settings {
			s := &t.Settings[i]
			where, _, _ := strings.Cut(s.Key, ".")
			if where != section.Name || s.Flag == "" {
				continue
			}
			if !begun {
				p.part("Flags for " + section.Name)
				begun = true
			}
			text := s.Help
			if s.Default != "" {
				text += " Default: `" + s.Default + "`."
			}
			p.item(flagTerm(s), text+" Setting `"+s.Key+"`.")
			for _, sw := range s.Switches {
				p.item("`--"+sw.Flag+"`", "The same as `--"+s.Flag+" "+sw.Value+"`.")
			}
		}
	}
	if len(t.Legacy) == 0 {
		return
	}
	p.part("Flags without effect")
	var old []string
	for _, l := range t.Legacy {
		old = append(old, "`--"+l.Flag+"`")
	}
	p.text("Earlier daemons had these. They are accepted, with one warning each: " + strings.Join(old, ", ") + ".")
}

// sentence makes one of a line of the synopsis.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
