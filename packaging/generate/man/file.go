package man

import (
	"path/filepath"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
)

// file is the page of a daemon's configuration, in section 5.
func (d *daemon) file(kinds []catalog.Kind) string {
	t, name := d.table, d.name()
	dir := filepath.Dir(t.File)
	p := newPage(name+".toml", "5", "File Formats")
	p.text(name + `.toml - configuration of ` + name)
	p.section("SYNOPSIS")
	p.lines("`"+t.File+"`", "`"+dir+"/config.d/*.toml`")
	p.section("DESCRIPTION")
	p.text("The settings of `" + name + "`(8), in TOML. The daemon reads them from these sources, and each source overrides the previous ones: the defaults, `config.toml`, the files in `config.d` in lexical order, the environment, flags.")
	p.text("Every setting is optional. An unknown setting is an error; the message gives the file, the line and the nearest known name. A value of the wrong kind or out of range is an error as well. The daemon refuses a world-writable file.")
	p.text("Kinds of values: a <duration> is a string with units, such as \"90s\" or \"1h30m\". A <size> is a number of bytes, or a string with a binary unit, such as \"20MiB\". A <list> is an array of strings. A <word> is one of the listed words. `version = 1` is the version of the file format.")
	p.section("OPTIONS")
	for _, section := range t.Sections {
		title := "[" + section.Name + "]"
		if section.Name == "" {
			title = section.Help
		}
		p.part(title)
		if section.Name != "" {
			p.text(section.Help)
		}
		for i := range t.Settings {
			s := &t.Settings[i]
			where, key, dotted := strings.Cut(s.Key, ".")
			if !dotted {
				where, key = "", s.Key
			}
			if where == section.Name {
				p.item("`"+key+"` = <"+s.Kind.Noun()+">", s.Help+" "+facts(s))
			}
		}
	}
	p.section("FILES")
	p.item("`"+t.File+"`", "The main file. The packaged file shows the default of every setting, commented out.")
	p.item("`"+dir+"/config.d/*.toml`", "Additional files in the same format. Put your changes here: they do not conflict with package updates.")
	p.section("ENVIRONMENT")
	p.text("These variables override the files. If the value of a variable of the older daemons has a special meaning, the description of the setting explains it.")
	p.items(environments(t))
	p.section("SIGNALS")
	p.item("`SIGHUP`", "Reload the configuration (`systemctl reload "+name+"`). Settings that are marked \"Takes effect on reload\" change immediately. The log lists changed settings that need a restart. If the configuration contains an error, the daemon keeps the old one.")
	p.section("EXIT STATUS")
	p.text("`" + name + " config check` and `" + name + " config dump` return 0 if the configuration is valid, 1 if it is not, and 2 for a usage error.")
	p.section("EXAMPLES")
	for _, e := range d.tuning {
		p.example(e.comment, e.lines)
	}
	p.section("JOURNAL")
	p.text("Records about the configuration:")
	for _, k := range kinds {
		if strings.HasSuffix(k.Event.Name, "reload") || strings.HasSuffix(k.Event.Name, "config-refused") {
			records(p, []catalog.Kind{k})
			p.also("For the job: " + bare(k.Job) + " What to do: " + bare(k.Do))
		}
	}
	seeAlso(p, name+"(8)", "systemctl(1)")
	return p.String()
}

// facts returns what the table knows about a setting in addition to the help.
func facts(s *config.Setting) string {
	var out []string
	add := func(what, value string) {
		if value != "" {
			out = append(out, what+": "+value+".")
		}
	}
	if s.Default != "" {
		add("Default", "`"+s.Default+"`")
	}
	add("Accepted", s.Accepted())
	if s.Flag != "" {
		add("Flag", "`--"+s.Flag+"`")
	}
	var names []string
	for _, e := range s.Env {
		names = append(names, "`"+e.Name+"`")
	}
	add("Environment", strings.Join(names, ", "))
	if s.Reload {
		out = append(out, "Takes effect on reload.")
	}
	return strings.Join(out, " ")
}
