package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// lives runs ClientMounts from creation to deletion one after another. The
// time in between the daemon's commands and requests comes from its own debug
// log, which is part of that time. The daemon is left running.
func (b *bench) lives() (*subject, error) {
	n, err := b.node()
	if err != nil {
		return nil, err
	}
	d, p, err := n.proxied("--log-level=debug")
	if err != nil {
		return nil, err
	}
	var writes, overhead, latency, reads []float64
	for i := range b.runs + 1 {
		name := fmt.Sprintf("life-%d", i)
		p.ClearRequests()
		began := time.Now()
		if err := n.ask(name); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(b.ctx, 60*time.Second)
		line, err := d.WaitLog(ctx, func(l lab.LogLine) bool {
			return l.Fields["msg"] == "ClientMount is mounted" && l.Fields["clientmount"] == name
		})
		cancel()
		if err != nil {
			return nil, fmt.Errorf("%s was not mounted: %w", name, err)
		}
		if err := n.await(name, mounted); err != nil {
			return nil, err
		}
		if err := n.remove(name); err != nil {
			return nil, err
		}
		text, _ := line.Fields["overhead"].(string)
		own, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("the daemon's log says no overhead: %s", line.Text)
		}
		writes = append(writes, float64(p.Count(lab.ClassCreate, lab.ClassUpdate, lab.ClassDelete, lab.ClassPatchObject, lab.ClassPatchStatus)))
		if i > 0 { // the first one finds nothing warm
			reads = append(reads, float64(p.Count(lab.ClassGet, lab.ClassList, lab.ClassWatch, lab.ClassOther)))
			overhead = append(overhead, milliseconds(own))
			latency = append(latency, milliseconds(line.Time.Sub(began)))
		}
	}
	b.add("writes per ClientMount life", "", 4, true, writes, "mount, unmount, delete; counted by a proxy")
	b.add("reads per ClientMount life", "", 2, true, reads, "the storage profile at mount and at unmount; besides the served version, once per process")
	b.add("own overhead per mount", "ms", 2, false, overhead, "the attempt without its commands' and requests' time, debug log on")
	b.add("mount latency, p50", "ms", noTarget, false, latency, "create sent until status written, stand-in LVM, real mount(8)")
	b.add("mount latency, p99", "ms", noTarget, false, []float64{quantile(latency, 0.99)}, "the same")
	end := func() error { return errors.Join(b.stop(d), p.Close()) }
	return &subject{about: clientmountd, what: "used daemon", daemon: d, how: fmt.Sprintf("after %d lives, none mounted, debug log on", b.runs+1), end: end}, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
