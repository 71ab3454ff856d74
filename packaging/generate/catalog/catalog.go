// Package catalog explains every kind of journal record: what happened, what it means
// for the job, and what to do. The message catalogue of the journal (journalctl -x), the
// tables in docs/ and a section of the man pages are made from it.
//
// It must not be linked into a daemon, which does not need the texts.
package catalog

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
)

// Home is the address of the project.
const Home = "https://github.com/compute-daemons/compute-daemons"

// text explains one kind of record. Every field but level may name fields of the
// record as @FIELD@. journalctl replaces it by the value, or by the bare name if the
// record has no value or a long one.
type text struct {
	name    string // of the event
	level   string // that it is logged at; several are separated by commas
	subject string // one line, without a full stop
	what    string // what happened
	job     string // what it means for the job
	todo    string // what to do
}

// Kind is an event with its explanation.
type Kind struct {
	Event    daemon.Event
	Level    string
	Subject  string
	What     string
	Job      string
	Do       string
	Programs []string // whose records they are
}

// group is a package that logs events.
type group struct {
	programs []string
	events   []daemon.Event
	texts    []text
}

func groups() []group {
	return []group{
		{[]string{"clientmountd"}, clientmount.Events(), clientmountTexts},
		{[]string{"nnf-dm"}, server.Events(), serverTexts},
		{[]string{"clientmountd", "nnf-dm"}, daemon.Events(), daemonTexts},
	}
}

// All returns every kind of record of both daemons, in the order of the texts.
// An event without a text, or a text without its event, is an error.
func All() (all []Kind, err error) {
	for _, g := range groups() {
		kinds, err := g.join()
		if err != nil {
			return nil, err
		}
		all = append(all, kinds...)
	}
	return all, nil
}

// Of returns the kinds of one program.
func Of(program string) (own []Kind, err error) {
	all, err := All()
	for _, k := range all {
		for _, p := range k.Programs {
			if p == program {
				own = append(own, k)
			}
		}
	}
	if err == nil && len(own) == 0 {
		err = fmt.Errorf("no records of %s are known", program)
	}
	return own, err
}

// join combines texts and events.
func (g group) join() (kinds []Kind, err error) {
	byName := map[string]daemon.Event{}
	for _, e := range g.events {
		if _, twice := byName[e.Name]; twice {
			return nil, fmt.Errorf("%s has two events named %s", strings.Join(g.programs, ", "), e.Name)
		}
		byName[e.Name] = e
	}
	for _, t := range g.texts {
		e, known := byName[t.name]
		if !known {
			return nil, fmt.Errorf("the text of %s matches no event of %s, or occurs twice", t.name, strings.Join(g.programs, ", "))
		}
		delete(byName, t.name)
		kinds = append(kinds, Kind{Event: e, Level: t.level, Subject: t.subject, What: t.what, Job: t.job, Do: t.todo, Programs: g.programs})
	}
	for _, e := range g.events {
		if _, left := byName[e.Name]; left {
			return nil, fmt.Errorf("the event %s of %s has no text: write one in packaging/generate/catalog", e.Name, strings.Join(g.programs, ", "))
		}
	}
	return kinds, nil
}

var fieldForm = regexp.MustCompile(`@([A-Z_]+)@`)

// Fields returns the fields that the texts refer to.
func (k Kind) Fields() (names []string) {
	for _, m := range fieldForm.FindAllStringSubmatch(strings.Join([]string{k.Subject, k.What, k.Job, k.Do}, " "), -1) {
		names = append(names, m[1])
	}
	return names
}

// Named replaces each @FIELD@ by the name of the field in backquotes, for texts that are
// not about one record.
func Named(s string) string { return fieldForm.ReplaceAllString(s, "`$1`") }

// columns is the width of journalctl -x, without its mark.
const columns = 76

// Write returns the file for /usr/lib/systemd/catalog, in the format of the catalogues of
// systemd: one entry for each MESSAGE_ID.
func Write(kinds []Kind) string {
	var b strings.Builder
	b.WriteString("# Explanations of the journal records of clientmountd and nnf-dm, shown by\n# journalctl -x. Written by make generate from packaging/generate/catalog.\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "\n-- %s\nSubject: %s\nDefined-By: compute-daemons\nSupport: %s/issues\n", k.Event.ID, k.Subject, Home)
		for _, p := range k.Programs {
			fmt.Fprintf(&b, "Documentation: man:%s(8)\n", p)
		}
		b.WriteString("\n" + wrap(k.What) + "\n" + wrap("For the job: "+k.Job) + "\n" + wrap("What to do: "+k.Do))
	}
	return b.String()
}

// Table returns the kinds as a Markdown table for docs/PROGRAM.md.
func Table(kinds []Kind) string {
	var b strings.Builder
	b.WriteString("\n| EVENT | MESSAGE_ID | level | what happened | for the job | what to do |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s |\n", k.Event.Name, k.Event.ID, k.Level, cell(k.What), cell(k.Job), cell(k.Do))
	}
	b.WriteString("\n")
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(Named(s), "|", `\|`) }

func wrap(text string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case width == 0:
		case width+1+len(word) > columns:
			b.WriteByte('\n')
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += len(word)
	}
	return b.String() + "\n"
}
