package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// subject is a daemon that is measured while it is idle. Reading /proc does not wake it.
type subject struct {
	about  program
	what   string
	how    string // activity before the measurement
	daemon *lab.Process
	end    func() // called before the daemon is stopped; may be nil

	resident, anonymous float64 // targets in MB; 0: no target
	switches            float64 // target per minute; 0: not counted
	like                string  // the subject whose context switches are subtracted for another figure; "": none
}

// idle measures all idle daemons at the same time, because waiting takes most of the time
// of the benchmark.
func (b *bench) idle(list []*subject) {
	fresh := b.usages(list)
	b.pause(b.settle)
	before := b.usages(list)
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
		b.countSwitches(list, fresh, before)
	}
	for _, s := range list {
		if s.end != nil {
			s.end()
		}
		b.copies.Stop(s.daemon)
	}
}

// countSwitches counts context switches after the memory has been read.
func (b *bench) countSwitches(list []*subject, fresh, before []lab.Usage) {
	began := time.Now()
	b.pause(b.window)
	minutes := time.Since(began).Minutes()
	after := b.usages(list)
	for i, s := range list {
		if s.switches == 0 {
			continue
		}
		b.about = s.about
		b.add("context switches settling, "+s.what, "", noTarget, true, []float64{float64(before[i].Switches() - fresh[i].Switches())},
			fmt.Sprintf("in the %v before: memory is returned; at the first bookmark of clientmountd, code pages are faulted in again", b.settle))
		b.add("context switches idle, "+s.what, "/min", s.switches, true, []float64{float64(after[i].Switches()-before[i].Switches()) / minutes},
			fmt.Sprintf("all %d threads, both kinds, counted for %v", after[i].Threads, b.window))
	}
	for i, s := range list {
		j := slices.IndexFunc(list, func(o *subject) bool { return o.about == s.about && o.what == s.like })
		if s.like == "" || j < 0 {
			continue
		}
		b.about = s.about
		more := float64(after[i].Switches()-before[i].Switches()) - float64(after[j].Switches()-before[j].Switches())
		b.add("context switches idle, added by the "+s.what, "/min", moreSwitches, true, []float64{max(more/minutes, 0)},
			"more than in the row \""+s.like+"\", measured at the same time with the shared token; 0 if there are fewer")
	}
}

// moreSwitches is the target for the idle context switches per minute that the renewal of a token
// adds. It should add none, but a bookmark can be counted for one of two daemons only.
const moreSwitches = 2

// usages returns the resource usage of the daemons.
func (b *bench) usages(list []*subject) []lab.Usage {
	out := make([]lab.Usage, len(list))
	for i, s := range list {
		var err error
		out[i], err = s.daemon.Usage()
		b.must(err)
	}
	return out
}

// fresh starts the daemons that are measured idle: clientmountd without a ClientMount, with a
// token that it renews, and with a ClientMount mounted; nnf-dm without clients and with many
// connected clients.
func (b *bench) fresh() []*subject {
	none, own, one := b.node(), b.node(), b.node()
	list := []*subject{
		{about: clientmountd, what: "no mount", daemon: none.Start(), resident: 13, anonymous: 3, switches: 8},
		{about: clientmountd, what: "token of the node", daemon: own.startWithToken(), resident: 13, anonymous: 3, switches: 8, like: "no mount"},
		{about: clientmountd, what: "one mount", daemon: one.Start(), resident: 13, anonymous: 3, switches: 8, end: func() { one.remove("idle") }},
	}
	one.mount("idle")
	return append(list, b.copies.withClients(0), b.copies.withClients(b.clients))
}
