package fleet

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/compute-daemons/compute-daemons/internal/printable"
)

// Screen is an Observer for people. Close it before anything else is written.
type Screen interface {
	Observer
	Say(line string) // without getting into a bar's way
	Close()
}

// NewScreen shows how it goes: a bar where w is a terminal, else a line for each
// node that is through, unless the answer comes at once and tells it all (brief).
// prefix is the program's name.
func NewScreen(w io.Writer, environ func(string) string, prefix string, nodes int, brief bool) Screen {
	f, ok := w.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) && environ("TERM") != "dumb" {
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
	text := fmt.Sprintf("%s: %s, %s", r.Node, r.State, clock(r))
	if t := r.Text(); t != "" {
		text += ": " + t
	}
	return printable.Line(text)
}

// refresh is how often the bar is drawn.
const refresh = 150 * time.Millisecond

// bar is one progress bar for all nodes; who fails is said above it at once.
type bar struct {
	prefix string
	out    *mpb.Progress
	bar    *mpb.Bar
	state  atomic.Pointer[progress]
	steps  map[string]string
	began  time.Time
}

type progress struct {
	through, nodes, failed int
	steps                  string // how many nodes are where
}

func newBar(f *os.File, prefix string, nodes int) *bar {
	b := &bar{prefix: prefix, steps: map[string]string{}, began: time.Now()}
	b.state.Store(&progress{nodes: nodes})
	b.out = mpb.New(mpb.WithOutput(f), mpb.WithRefreshRate(refresh), mpb.WithAutoRefresh())
	b.bar = b.out.New(int64(nodes), mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarWidth(30), mpb.BarFillerTrim(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
			s := b.state.Load()
			return fmt.Sprintf("%d of %d nodes ", s.through, s.nodes)
		})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			s := b.state.Load()
			text := " " + time.Since(b.began).Round(time.Second).String()
			if s.failed > 0 {
				text += fmt.Sprintf(", %d failed", s.failed)
			}
			if s.steps != "" {
				text += ", " + s.steps
			}
			return text
		})),
	)
	return b
}

func (b *bar) Begin(node string) { b.Step(node, "look") }

func (b *bar) Step(node, step string) {
	b.steps[node] = step
	b.show(func(*progress) {})
}

func (b *bar) End(r Result) {
	delete(b.steps, r.Node)
	b.show(func(p *progress) {
		p.through++
		if r.State == Failed {
			p.failed++
		}
	})
	if r.State == Failed {
		b.Say(line(r))
	}
	b.bar.Increment()
}

func (b *bar) show(change func(*progress)) {
	p := *b.state.Load()
	change(&p)
	counts := map[string]int{}
	for _, s := range b.steps {
		counts[s]++
	}
	var parts []string
	for _, s := range []string{"look", "upload", "switch", "reconnect", "verify"} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", s, counts[s]))
		}
	}
	p.steps = strings.Join(parts, ", ")
	b.state.Store(&p)
}

func (b *bar) Say(line string) { fmt.Fprintf(b.out, "%s: %s\n", b.prefix, line) }

func (b *bar) Close() {
	b.bar.Abort(false) // a bar that is full has ended already
	b.out.Wait()
}
