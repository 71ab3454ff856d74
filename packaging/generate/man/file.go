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
	p.text("Settings of `" + name + "`(8), in TOML. They are put together from these layers, of which each later one wins: the defaults, `config.toml`, the files of `config.d` in lexical order, the environment, flags.")
	p.text("Every setting can be left out. One that is not known is an error, which names the file, the line and the nearest name that is known; so is a value of the wrong kind or out of range. A file that everybody can write to is refused.")
	p.text("Kinds of values: a <duration> is a string with units, \"90s\" or \"1h30m\"; a <size> a string with a unit of 1024, \"20MiB\", or a number of bytes; a <list> an array of strings; a <word> one of those that are listed. `version = 1` says which form the file has.")
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
	p.item("`"+t.File+"`", "The file. The package brings one in which everything is commented out and shows its default.")
	p.item("`"+dir+"/config.d/*.toml`", "More of the same form: an update of the package never asks what to do with your changes when they are here.")
	p.section("ENVIRONMENT")
	p.text("These win over the files. How an earlier daemon's name is understood, the setting's text says.")
	p.items(environments(t))
	p.section("SIGNALS")
	p.item("`SIGHUP`", "The daemon reads everything again (`systemctl reload "+name+"`). Settings that are marked take effect; of the others the log says that they wait for a restart. When anything is wrong, nothing is taken over.")
	p.section("EXIT STATUS")
	p.text("`" + name + " config check` and `" + name + " config dump` end with 0 when the configuration is right, 1 when it is not, 2 when their own command line is wrong.")
	p.section("EXAMPLES")
	for _, e := range d.tuning {
		p.example(e.comment, e.lines)
	}
	p.section("JOURNAL")
	p.text("Records that are about the configuration:")
	for _, k := range kinds {
		if strings.HasSuffix(k.Event.Name, "reload") || strings.HasSuffix(k.Event.Name, "config-refused") {
			records(p, []catalog.Kind{k})
			p.also("For the job: " + bare(k.Job) + " What to do: " + bare(k.Do))
		}
	}
	seeAlso(p, name+"(8)", "systemctl(1)")
	return p.String()
}

// facts are what the table knows of a setting beside the help.
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
