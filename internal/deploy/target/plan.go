package target

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Plan has the changes that a node needs.
type Plan struct {
	Changes []Change
	Notes   []string // remarks about unusual things that are not changed

	bins    []string // daemons to restart
	members []member // of the archive
	steps   []string // lines of the manifest
}

// Change is one change, for display.
type Change struct {
	Verb   string // install, replace, write, permissions, retire, remove, enable, start, restart, stop
	What   string // a path, package or unit
	Detail string // what is replaced, or why; can be empty
}

func (c Change) String() string {
	if c.Detail != "" {
		return fmt.Sprintf("%s %s (%s)", c.Verb, c.What, c.Detail)
	}
	return c.Verb + " " + c.What
}

// Empty reports whether the node is already in the wanted state.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Bytes returns the size of the files to send.
func (p *Plan) Bytes() (n int64) {
	for _, m := range p.members {
		n += m.size
	}
	return n
}

// member is one file of the archive: data, or a file on the administrator's host.
type member struct {
	name string
	sum  string
	data []byte
	path string
	size int64
}

func (p *Plan) change(verb, what, detail string) {
	p.Changes = append(p.Changes, Change{verb, what, detail})
}

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// word matches a field of the manifest, which the switch script reads. Fields are separated
// by spaces.
var word = regexp.MustCompile(`^[A-Za-z0-9@._:/+-]+$`)

// step adds a line to the manifest.
func (p *Plan) step(fields ...string) {
	for _, f := range fields {
		if !word.MatchString(f) {
			// Names of daemons have been checked before, and paths are constant.
			panic(fmt.Sprintf("%q is not valid in a manifest", f))
		}
	}
	p.steps = append(p.steps, strings.Join(fields, " "))
}

// addMember adds a member to the archive. It returns the name in the archive, which ends
// with m.name.
func (p *Plan) addMember(m member) string {
	m.name = fmt.Sprintf("m%d%s", len(p.members), m.name)
	p.members = append(p.members, m)
	return m.name
}

func (p *Plan) restart(bin string) {
	if !slices.Contains(p.bins, bin) {
		p.bins = append(p.bins, bin)
	}
}

// Problem is an error about the state of a node, with a hint.
type Problem struct{ Text, Hint string }

func (p *Problem) Error() string { return p.Text }

func problemf(hint, format string, args ...any) *Problem {
	return &Problem{Text: fmt.Sprintf(format, args...), Hint: hint}
}

// archive is a plan as a tar stream: the members, the manifest, the switch script, and the
// checksums of all files.
type archive struct {
	members []member
	size    int64
}

func newArchive(p *Plan, run string) *archive {
	a := &archive{members: append([]member(nil), p.members...)}
	daemons := strings.Join(p.bins, "\n")
	if daemons != "" {
		daemons += "\n"
	}
	for name, text := range map[string]string{"manifest": strings.Join(p.steps, "\n") + "\n", "daemons": daemons, "run": run + "\n", "switch.sh": bare(switchText)} {
		data := []byte(text)
		a.members = append(a.members, member{name: name, sum: sum(data), data: data, size: int64(len(data))})
	}
	var sums strings.Builder
	for _, m := range a.members {
		fmt.Fprintf(&sums, "%s  %s\n", m.sum, m.name)
	}
	a.members = append(a.members, member{name: "sums", data: []byte(sums.String()), size: int64(sums.Len())})
	for _, m := range a.members {
		a.size += block + (m.size+block-1)/block*block
	}
	a.size += 2 * block // end of the archive
	return a
}

const block = 512 // size in bytes of a tar block
