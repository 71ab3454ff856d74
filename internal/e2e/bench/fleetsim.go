package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// fleetProgram simulates many nodes on one API server.
const fleetProgram = "fleetsim"

// simulatedFleet is the part of the report of fleetsim that is used here. Counts are per node.
type simulatedFleet struct {
	Memory float64  `json:"memory_kb_per_node"`
	RSS    float64  `json:"server_rss_mb"` // before the nodes start
	Rows   []simRow `json:"rows"`
}

type simRow struct {
	Scenario string             `json:"scenario"`
	P99      float64            `json:"p99"`
	Requests map[string]float64 `json:"requests"`
	Peak     float64            `json:"peak"`
	CPU      float64            `json:"server_cpu_ms"`
	RSS      float64            `json:"server_rss_mb"`
}

// fleetsim runs fleetsim with the nodes of this benchmark.
func (b *bench) fleetsim(args ...string) *simulatedFleet {
	path, err := lab.Binary(fleetProgram)
	b.must(err)
	cmd := exec.CommandContext(b.tb.Context(), path, append(args, "--json", "--nodes="+strconv.Itoa(b.many), "--sample="+strconv.Itoa(b.many))...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.Output()
	f := new(simulatedFleet)
	if err == nil {
		err = json.Unmarshal(out, f)
	}
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			b.tb.Fatalf("%s: %v\n%s", fleetProgram, err, exit.Stderr)
		}
		b.tb.Fatalf("%s: %v", fleetProgram, err)
	}
	return f
}

// rowOf returns the row of a scenario.
func (b *bench) rowOf(f *simulatedFleet, scenario string) simRow {
	for _, r := range f.Rows {
		if r.Scenario == scenario {
			return r
		}
	}
	b.tb.Fatalf("%s printed no row %q", fleetProgram, scenario)
	return simRow{}
}

// manyNodes measures the load of many nodes on one API server.
func (b *bench) manyNodes() {
	how := fmt.Sprintf("fleetsim, %d nodes and the API server on this machine", b.many)
	one := func(name, unit string, target, value float64) {
		b.add(name, unit, target, true, []float64{value}, how)
	}
	f := b.fleetsim("--only=load", "--spread=2s", "--steady=5s")
	start, first := b.rowOf(f, "start, all at once"), b.rowOf(f, "first job on all nodes")
	quiet := b.rowOf(f, "second job on all nodes")
	one("start of many nodes, p99", "s", noTarget, start.P99)
	one("start of many nodes, requests per node", "", 2, start.Requests["total"])
	one("start of many nodes, API server memory per node", "kB", noTarget, 1000*(start.RSS-f.RSS)/float64(b.many))
	one("memory of a simulated node, with its connection", "kB", 150, f.Memory)
	one("job on many nodes, until ready, p99", "s", noTarget, quiet.P99)
	one("job on many nodes, writes per node", "", 4, max(first.Requests["patch"], quiet.Requests["patch"]))
	one("job on many nodes, reads per node", "", 2, max(first.Requests["profile"], quiet.Requests["profile"]))
	one("job on many nodes, API server CPU per node", "ms", noTarget, quiet.CPU)
	one("the same with a noisy client and flow control, ratio of p99", "", 2, b.rowOf(f, "the same with flow control").P99/quiet.P99)
	one("the same while 10 % of the nodes fail, ratio of p99", "", noTarget, b.rowOf(f, "job while 10 % of the nodes fail").P99/quiet.P99)
	b.about = nnfDM
	one("copies on many nodes, requests per copy", "", 6, b.rowOf(f, "copy offload, 8 copies per node").Requests["total"]/8)
	b.about = clientmountd
	stop := b.rowOf(b.fleetsim("--only=compare", "--spread=1s", "--steady=0s"), "API server restarted by SIGTERM")
	one("restart of the API server, requests per node", "", 1.1, stop.Requests["total"])
	one("restart of the API server, nodes in the busiest second", "%", 10, 100*stop.Peak)
	one("restart of the API server, until a node follows, p99", "s", noTarget, stop.P99)
}
