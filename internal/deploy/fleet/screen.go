package fleet

import (
	"fmt"
	"io"
	"sync"

	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/terminal"
)

// Screen is an Observer for people. Close it before anything else is written.
type Screen interface {
	Observer
	Say(line string) // without getting into a bar's way
	Close()
}

// NewScreen shows how it goes: a bar where w is a terminal that can draw one, else a line for each
// node that is through, unless the answer comes at once and tells it all (brief).
// prefix is the program's name.
func NewScreen(w io.Writer, environ func(string) string, prefix string, nodes int, brief bool) Screen {
	if f, ok := terminal.Redraws(w, environ("TERM")); ok {
		return newBar(f, prefix, nodes)
	}
	return &plain{w: w, prefix: prefix, nodes: nodes, brief: brief}
}

// plain writes lines.
type plain struct {
	mu      sync.Mutex
	w       io.Writer
	prefix  string
	nodes   int
	brief   bool
	through int
}

func (p *plain) Begin(string)        {}
func (p *plain) Step(string, string) {}
func (p *plain) Close()              {}

func (p *plain) Say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "%s: %s\n", p.prefix, line)
}

func (p *plain) End(r Result) {
	p.through++
	if p.brief || r.State == Skipped {
		return // one line at the end tells of all of them
	}
	p.Say(fmt.Sprintf("[%d/%d] %s", p.through, p.nodes, line(r)))
}

// line is one result in one line.
func line(r Result) string {
	s := fmt.Sprintf("%s: %s, %s", r.Node, r.State, clock(r))
	if t := r.Text(); t != "" {
		s += ": " + t
	}
	return text.Line(s)
}
