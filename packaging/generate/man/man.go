// Package man generates the manual pages: clientmountd(8), nnf-dm(8), the pages of
// their files in section 5, nnf-dmctl(1) and nnf-deploy(8). Settings, flags, commands,
// exit codes and kinds of records come from the tables of the programs; only the prose
// is here.
//
// The package writes roff directly. A converter from Markdown would add a module, and
// Markdown has no definition lists, which make up most of these pages.
package man

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
	"github.com/compute-daemons/compute-daemons/packaging/generate/reference"
)

// Pages returns every page by its file's name.
func Pages() (map[string]string, error) {
	pages := map[string]string{"nnf-dmctl.1": tool(), "nnf-deploy.8": deployPage()}
	for _, d := range []*daemon{clientMount(), nnfdm()} {
		kinds, err := catalog.Of(d.table.Program)
		if err != nil {
			return nil, err
		}
		pages[d.table.Program+".8"] = d.program(kinds)
		pages[d.table.Program+".toml.5"] = d.file(kinds)
	}
	return pages, nil
}

// daemon has the texts for the pages of a daemon that its tables do not contain.
type daemon struct {
	table       *config.Table
	tools       *cli.Guide // sub-commands that report about the node; nil: none
	lead        string     // for NAME
	description []string   // paragraphs
	files       []item
	signals     []item
	environment []item // in addition to those of the table
	examples    []example
	tuning      []example // of the file
	journal     []example
	also        []string
}

type example struct{ comment, lines string }

func (d *daemon) name() string { return d.table.Program }

// usage returns a command as a line of a page.
func usage(program string, c config.Command) string {
	flags := c.Flags
	c.Flags = false
	line := "`" + c.Usage(program) + "`"
	if flags {
		line += " [<flags>]"
	}
	return line
}

// flagTerm returns a flag with its value.
func flagTerm(s *config.Setting) string {
	term := "`--" + s.Flag + "`"
	if a := s.Argument(); a != "" && s.Kind == config.Enum {
		term += " `" + a + "`"
	} else if a != "" {
		term += " <" + a + ">"
	}
	return term
}

// environments returns the variables of the table, each with what it sets.
func environments(t *config.Table) (list []item) {
	var names []string
	keys := map[string][]string{}
	for _, s := range t.Settings {
		for _, e := range s.Env {
			if !slices.Contains(names, e.Name) {
				names = append(names, e.Name)
			}
			keys[e.Name] = append(keys[e.Name], "`"+s.Key+"`")
		}
	}
	slices.Sort(names)
	for _, n := range names {
		list = append(list, item{"`" + n + "`", "Sets " + strings.Join(keys[n], " and ") + "."})
	}
	for _, n := range t.Notices {
		list = append(list, item{"`" + n.Name + "`", reference.Sentence(n.Text)})
	}
	return list
}

func seeAlso(p *page, pages ...string) {
	p.section("SEE ALSO")
	var refs []string
	for _, ref := range pages {
		name, section, _ := strings.Cut(ref, "(")
		refs = append(refs, "`"+name+"`("+section)
	}
	p.text(strings.Join(refs, ", "))
	p.text("The documentation in /usr/share/doc and at " + catalog.Home + ".")
}

// records adds a short list of the kinds of journal records.
func records(p *page, kinds []catalog.Kind) {
	for _, k := range kinds {
		p.item(fmt.Sprintf("`%s` %s", k.Event.Name, k.Event.ID), fmt.Sprintf("(%s) %s", k.Level, bare(k.What)))
	}
}

// bare returns a text of the catalogue without the marks of fields.
func bare(s string) string { return catalog.Named(s) }
