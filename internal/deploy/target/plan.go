package target

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Plan is what has to change on a node.
type Plan struct {
	Changes []Change
	Notes   []string // what is unusual and stays as it is

	bins    []string // daemons to restart
	members []member // of the archive
	steps   []string // of the manifest
}

// Change is one change, for people.
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

// Empty reports whether the node is as wanted.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Bytes is the size of what has to be sent.
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

// word is a field of the manifest, which the switch script reads: fields are separated
// by blanks, lines by line feeds.
var word = regexp.MustCompile(`^[A-Za-z0-9@._:/+-]+$`)

// step adds a line to the manifest.
func (p *Plan) step(fields ...string) {
	for _, f := range fields {
		if !word.MatchString(f) {
			// All of it was checked before: names of daemons, our own paths.
			panic(fmt.Sprintf("%q cannot stand in a manifest", f))
		}
	}
	p.steps = append(p.steps, strings.Join(fields, " "))
}

// carry adds a member to the archive and returns its name there, which ends with the
// member's.
func (p *Plan) carry(m member) string {
	m.name = fmt.Sprintf("m%d%s", len(p.members), m.name)
	p.members = append(p.members, m)
	return m.name
}

func (p *Plan) restart(bin string) {
	if !slices.Contains(p.bins, bin) {
		p.bins = append(p.bins, bin)
	}
}

// Problem is the reason why a node cannot be changed as wanted, with a hint.
type Problem struct{ Text, Hint string }

func (p *Problem) Error() string { return p.Text }

func problemf(hint, format string, args ...any) *Problem {
	return &Problem{Text: fmt.Sprintf(format, args...), Hint: hint}
}

// archive is a plan as a tar stream: the members, the manifest, and the checksums of
// all of them.
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
	a.size += 2 * block // the end
	return a
}

const block = 512 // bytes, of tar

// write writes the archive, exactly a.size bytes of it.
func (a *archive) write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, m := range a.members {
		if err := t.WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Name: m.name, Mode: 0o600, Size: m.size, ModTime: time.Unix(1, 0), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if err := m.write(t); err != nil {
			return err
		}
	}
	return t.Close()
}

func (m *member) write(w io.Writer) error {
	if m.path == "" {
		_, err := w.Write(m.data)
		return err
	}
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := io.Copy(w, io.LimitReader(f, m.size)); err != nil {
		return err
	} else if n != m.size {
		return fmt.Errorf("%s has changed while it was sent", m.path)
	}
	return nil
}
