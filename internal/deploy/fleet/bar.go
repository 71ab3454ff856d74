package fleet

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

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
