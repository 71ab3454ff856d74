package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// subject is a daemon that is measured while it has nothing to do. Reading its
// accounts in /proc does not wake it.
type subject struct {
	about  program
	what   string
	how    string // what went before
	daemon *lab.Daemon
	end    func() error // nil: stop the daemon

	resident, anonymous float64 // targets, MB; 0: none
	switches            float64 // target, per minute; 0: they are not counted
}

// idle measures all that have nothing to do side by side: the waiting takes
// most of the bench's time.
func (b *bench) idle(list []*subject) error {
	fresh, err := usages(list)
	if err != nil {
		return err
	}
	if err := b.pause(b.settle); err != nil {
		return err
	}
	before, err := usages(list)
	if err != nil {
		return err
	}
	for i, s := range list {
		how := fmt.Sprintf("smaps_rollup after %v idle", b.settle)
		if s.how != "" {
			how = fmt.Sprintf("%v %s", b.settle, s.how)
		}
		b.about = s.about
		b.add("memory resident, "+s.what, "MB", cmp.Or(s.resident, noTarget), true, []float64{float64(before[i].RSS) / 1e6}, how)
		b.add("memory anonymous, "+s.what, "MB", cmp.Or(s.anonymous, noTarget), true, []float64{float64(before[i].Anonymous) / 1e6}, how)
	}
	if slices.ContainsFunc(list, func(s *subject) bool { return s.switches != 0 }) {
		if err := b.countSwitches(list, fresh, before); err != nil {
			return err
		}
	}
	for _, s := range list {
		end := s.end
		if end == nil {
			end = func() error { return b.stop(s.daemon) }
		}
		if err := end(); err != nil {
			return fmt.Errorf("%s, %s: %w", s.about, s.what, err)
		}
	}
	return nil
}

// countSwitches counts from the reading of the memory on.
func (b *bench) countSwitches(list []*subject, fresh, before []lab.Usage) error {
	began := time.Now()
	if err := b.pause(b.window); err != nil {
		return err
	}
	minutes := time.Since(began).Minutes()
	after, err := usages(list)
	if err != nil {
		return err
	}
	for i, s := range list {
		if s.switches == 0 {
			continue
		}
		b.about = s.about
		b.add("context switches settling, "+s.what, "", noTarget, true, []float64{float64(before[i].Switches() - fresh[i].Switches())},
			fmt.Sprintf("in the %v before: memory is given back; at clientmountd's first bookmark the code is faulted in again", b.settle))
		b.add("context switches idle, "+s.what, "/min", s.switches, true, []float64{float64(after[i].Switches()-before[i].Switches()) / minutes},
			fmt.Sprintf("all %d threads, both kinds, counted for %v", after[i].Threads, b.window))
	}
	return nil
}

// usages are the accounts of the daemons.
func usages(list []*subject) ([]lab.Usage, error) {
	out := make([]lab.Usage, len(list))
	for i, s := range list {
		u, err := s.daemon.Usage()
		if err != nil {
			return nil, err
		}
		out[i] = u
	}
	return out, nil
}

// fresh starts what is measured idle: clientmountd on a node without ClientMount
// and on one that has mounted one; nnf-dm that nobody has called and one to which
// many clients are connected.
func (b *bench) fresh() ([]*subject, error) {
	const name = "idle"
	var list []*subject
	for _, what := range []string{"no mount", "one mount"} {
		n, err := b.node()
		if err != nil {
			return nil, err
		}
		d, _, err := n.direct()
		if err != nil {
			return nil, err
		}
		s := &subject{about: clientmountd, what: what, daemon: d, resident: 13, anonymous: 3, switches: 8}
		list = append(list, s)
		if what == "no mount" {
			continue
		}
		if err := n.ask(name); err != nil {
			return nil, err
		}
		if err := n.await(name, mounted); err != nil {
			return nil, err
		}
		s.end = func() error {
			if err := n.remove(name); err != nil {
				return err
			}
			return b.stop(d)
		}
	}
	for _, clients := range []int{0, b.clients} {
		s, err := b.offload.withClients(clients)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
