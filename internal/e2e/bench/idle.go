package main

import (
	"fmt"
	"os"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// size is the released binary's, in 10^6 bytes.
func (b *bench) size() error {
	s, err := os.Stat(os.Getenv("CLIENTMOUNTD"))
	if err != nil {
		return fmt.Errorf("no released daemon, run make build-daemon: %w", err)
	}
	b.add("binary size", "MB", 12, true, []float64{float64(s.Size()) / 1e6}, "stripped, as released; MB = 10^6 bytes")
	return nil
}

// idle measures two daemons side by side: one whose node has no ClientMount and
// one that has mounted one. Reading their accounts in /proc does not wake them.
func (b *bench) idle() error {
	cases := []string{"no mount", "one mount"}
	daemons := make([]*lab.Daemon, len(cases))
	nodes := make([]*node, len(cases))
	for i := range cases {
		n, err := b.node()
		if err != nil {
			return err
		}
		if daemons[i], _, err = n.direct(); err != nil {
			return err
		}
		nodes[i] = n
	}
	const name = "idle"
	if err := nodes[1].ask(name); err != nil {
		return err
	}
	if err := nodes[1].await(name, mounted); err != nil {
		return err
	}
	fresh, err := usages(daemons)
	if err != nil {
		return err
	}
	if err := b.pause(b.settle); err != nil {
		return err
	}
	before, err := usages(daemons)
	if err != nil {
		return err
	}
	for i, u := range before {
		how := fmt.Sprintf("smaps_rollup after %v idle", b.settle)
		b.add("memory resident, "+cases[i], "MB", 13, true, []float64{float64(u.RSS) / 1e6}, how)
		b.add("memory anonymous, "+cases[i], "MB", 3, true, []float64{float64(u.Anonymous) / 1e6}, how)
	}
	began := time.Now()
	if err := b.pause(b.window); err != nil {
		return err
	}
	minutes := time.Since(began).Minutes()
	after, err := usages(daemons)
	if err != nil {
		return err
	}
	for i, u := range after {
		b.add("context switches settling, "+cases[i], "", noTarget, true, []float64{float64(before[i].Switches() - fresh[i].Switches())},
			fmt.Sprintf("in the %v before: memory is given back, the first bookmark faults the code in again", b.settle))
		b.add("context switches idle, "+cases[i], "/min", 8, true, []float64{float64(u.Switches()-before[i].Switches()) / minutes},
			fmt.Sprintf("all %d threads, both kinds, counted for %v", u.Threads, b.window))
	}
	if err := nodes[1].remove(name); err != nil {
		return err
	}
	for i, d := range daemons {
		if err := nodes[i].stop(d); err != nil {
			return err
		}
	}
	return nil
}

// usages are the accounts of the daemons.
func usages(daemons []*lab.Daemon) ([]lab.Usage, error) {
	out := make([]lab.Usage, len(daemons))
	for i, d := range daemons {
		u, err := d.Usage()
		if err != nil {
			return nil, err
		}
		out[i] = u
	}
	return out, nil
}
