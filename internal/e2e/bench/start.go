package main

import (
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// start measures exec to READY against the API server itself, then counts what
// a start asks of it, through a proxy.
func (b *bench) start() error {
	n, err := b.node()
	if err != nil {
		return err
	}
	var ready []float64
	for range b.starts {
		d, took, err := n.direct()
		if err != nil {
			return err
		}
		if err := n.stop(d); err != nil {
			return err
		}
		ready = append(ready, float64(took.Microseconds())/1000)
	}
	b.add("exec to READY=1", "ms", 30, false, ready, "from before fork until the service manager has it; API server on loopback")
	d, p, err := n.proxied()
	if err != nil {
		return err
	}
	if _, err := p.WaitRequest(b.ctx, func(r *lab.Request) bool { return r.Class == lab.ClassWatch }); err != nil {
		return err
	}
	// A request that came late would be counted at the next mount, so give it
	// the time of one.
	const name = "after-start"
	atReady := slices.Clone(p.Requests())
	if err := n.ask(name); err != nil {
		return err
	}
	if err := n.await(name, mounted); err != nil {
		return err
	}
	watches := p.Count(lab.ClassWatch)
	b.add("requests at start", "", 3, true, []float64{float64(len(atReady))}, "until READY and the watch, counted by a proxy")
	b.add("watches", "", 1, true, []float64{float64(watches)}, "until after the first mount")
	if err := n.remove(name); err != nil {
		return err
	}
	if err := n.stop(d); err != nil {
		return err
	}
	return p.Close()
}
