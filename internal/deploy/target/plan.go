package target

import (
	"fmt"
	"regexp"
	"strings"
)

// Plan is the difference between what a node is and what it is to be.
type Plan struct {
	Changes []Change
	Notes   []string // what is not as one would expect and stays as it is

	bins    []string // daemons that run anew when it is through
	members []member // of the archive
	steps   []string // of the manifest
}

// Change is one thing that will be different.
type Change struct {
	Verb string // install, replace, write, permissions, retire, remove, enable, start, restart, stop
	What string // a path, package, unit
	Was  string // for replace: what is there
}

func (c Change) String() string {
	if c.Was != "" {
		return fmt.Sprintf("%s %s (is %s)", c.Verb, c.What, c.Was)
	}
	return c.Verb + " " + c.What
}

// Empty is true when the node is what it is to be.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Bytes is what has to be sent.
func (p *Plan) Bytes() (n int64) {
	for _, m := range p.members {
		n += m.size
	}
	return n
}

// member is one file of the archive: bytes, or a file of the administrator's host.
type member struct {
	name string
	sum  string
	data []byte
	path string
	size int64
}

func (p *Plan) change(verb, what, was string) {
	p.Changes = append(p.Changes, Change{verb, what, was})
}

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// word is what a field of the manifest may be. The scripts need it: fields are
// separated by blanks, lines by line feeds.
var word = regexp.MustCompile(`^[A-Za-z0-9@._:/+-]+$`)

func (p *Plan) step(fields ...string) {
	for _, f := range fields {
		if !word.MatchString(f) {
			// All of it was checked before: names of daemons, our own paths.
			panic(fmt.Sprintf("%q cannot stand in a manifest", f))
		}
	}
	p.steps = append(p.steps, strings.Join(fields, " "))
}

// carry puts something into the archive and returns its name there, which ends
// as the member's does.
func (p *Plan) carry(m member) string {
	m.name = fmt.Sprintf("m%d%s", len(p.members), m.name)
	p.members = append(p.members, m)
	return m.name
}

func (p *Plan) restart(bin string) {
	for _, b := range p.bins {
		if b == bin {
			return
		}
	}
	p.bins = append(p.bins, bin)
}
