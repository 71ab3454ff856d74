package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// The largest share of the load of the reference fleet that our nodes may cause.
const (
	aimMemory   = 1.0 / 4
	aimCPU      = 1.0 / 6
	aimRequests = 1.0 / 10
	aimTime     = 1.0 / 6
)

// comparison is the result of the reference fleet, and the shares of our fleet: its figure
// divided by that of the reference fleet.
type comparison struct {
	Reference report   `json:"reference"`
	Memory    *share   `json:"memory"` // of the process, per node
	Shares    []shares `json:"shares"`
	Missed    []string `json:"missed,omitempty"` // aims
}

// share is nil if the reference fleet has no figure.
type share = float64

// shares are those of a scenario.
type shares struct {
	Scenario     string `json:"scenario"`
	ServerMemory *share `json:"server_memory,omitempty"` // growth since before the start of the nodes
	ServerCPU    *share `json:"server_cpu,omitempty"`
	Requests     *share `json:"requests,omitempty"`
	P99          *share `json:"p99,omitempty"`
	Last         *share `json:"last,omitempty"`
}

// compare runs the scenarios that have no simulated failures of nodes with the reference
// fleet and an API server of its own, and adds the comparison to the report.
func (s *simulation) compare(l *lab.Lab, dir string) (err error) {
	s.say("stopping the API server, and starting another one for the reference fleet")
	if err := errors.Join(s.cluster.Stop(), os.RemoveAll(s.cluster.Dir)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	r := &simulation{options: s.options, ctx: ctx}
	defer r.late.measure(ctx)()
	r.Machine, r.Nodes = s.Machine, s.Nodes
	defer func() {
		// The end of the process explains all other errors.
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = errors.Join(cause, err)
		}
	}()
	if r.cluster, err = l.StartCluster(ctx, lab.ClusterOptions{Dir: filepath.Join(dir, "reference")}); err != nil {
		return err
	}
	nodes := filepath.Join(dir, "reference-nodes")
	if err := os.Mkdir(nodes, 0o700); err != nil {
		return err
	}
	if r.fleet, err = newFleet(s.Nodes, nodes, r.cluster); err != nil {
		return err
	}
	if r.fleet.reference, err = startReference(l, r.fleet, cancel); err != nil {
		return err
	}
	defer r.fleet.reference.close()
	if err := r.prepare(); err != nil {
		return err
	}
	r.accounts = accounts{cluster: r.cluster, dir: nodes}
	if r.manager, err = newManager(ctx, &r.accounts); err != nil {
		return err
	}
	defer r.manager.close()
	if r.ServerRSS, err = r.serverMemory(); err != nil {
		return err
	}
	job := func(name string) scenario {
		job := r.jobOn(name, r.fleet.nodes)
		return scenario{"reference: " + job.what, func() error {
			err := job.run()
			r.nothingLeft(r.Rows[len(r.Rows)-1])
			return err
		}}
	}
	err = r.each([]scenario{
		{"reference: start of all nodes at once", r.startAtOnce},
		{fmt.Sprintf("reference: start of all nodes within %v", r.spread), r.startSpread},
		{fmt.Sprintf("reference: steady state for %v", r.steady), r.steadyState},
		job("first job"),
		job("second job"),
		{"reference: API server restarted", r.restarts},
		{"reference: end", r.fleet.stopAll},
	})
	if err != nil {
		return err
	}
	s.Comparison = compareReports(&s.report, &r.report)
	return nil
}

// serverMemory returns the resident memory of the API server in MB.
func (s *simulation) serverMemory() (float64, error) {
	u, err := s.cluster.Usage()
	return float64(u.RSS) / 1e6, err
}

// divide returns the share of ours, or nil.
func divide(ours, reference float64) *share {
	if reference <= 0 {
		return nil
	}
	q := max(0, ours) / reference
	return &q
}

// overall is the name of the shares of all scenarios.
const overall = "all of them"

// compareReports compares the scenarios that both fleets have run.
func compareReports(ours, reference *report) *comparison {
	c := &comparison{Reference: *reference, Memory: divide(ours.Memory, reference.Memory)}
	byName := map[string]*row{}
	for _, row := range ours.Rows {
		byName[row.Scenario] = row
	}
	// figures are the same figures of two fleets, or their sums; of the memory, the largest
	// one.
	type figures struct{ memory, cpu, requests, p99, last float64 }
	of := func(r *report, row *row) figures {
		return figures{row.ServerRSS - r.ServerRSS, row.ServerCPU, row.Requests["total"], row.P99, row.Last}
	}
	add := func(sum *figures, f figures) {
		*sum = figures{max(sum.memory, f.memory), sum.cpu + f.cpu, sum.requests + f.requests, sum.p99 + f.p99, sum.last + f.last}
	}
	shareOf := func(name string, a, b figures) shares {
		return shares{name, divide(a.memory, b.memory), divide(a.cpu, b.cpu), divide(a.requests, b.requests), divide(a.p99, b.p99), divide(a.last, b.last)}
	}
	var sumOurs, sumReference figures
	for _, row := range reference.Rows {
		own := byName[row.Scenario]
		if own == nil {
			continue
		}
		a, b := of(ours, own), of(reference, row)
		c.Shares = append(c.Shares, shareOf(row.Scenario, a, b))
		add(&sumOurs, a)
		add(&sumReference, b)
	}
	total := shareOf(overall, sumOurs, sumReference)
	c.Shares = append(c.Shares, total)
	for _, aim := range []struct {
		what   string
		aim    float64
		actual *share
	}{
		{"memory of the process", aimMemory, c.Memory},
		{"memory of the API server", aimMemory, total.ServerMemory},
		{"CPU time of the API server", aimCPU, total.ServerCPU},
		{"requests", aimRequests, total.Requests},
		{"time until 99 % of the nodes are done", aimTime, total.P99},
	} {
		if aim.actual == nil || *aim.actual > aim.aim {
			c.Missed = append(c.Missed, fmt.Sprintf("%s: %s instead of %.2f", aim.what, inDigits(aim.actual), aim.aim))
		}
	}
	return c
}

// inDigits formats a share for the table.
func inDigits(s *share) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *s)
}

// write prints the table of the reference fleet and the table of the shares.
func (c *comparison) write(w io.Writer) error {
	fmt.Fprint(w, "\nThe reference fleet, with an API server of its own:\n")
	if err := c.Reference.table(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	c.Reference.explain(w)
	fmt.Fprint(w, "\nFigures of this fleet divided by those of the reference fleet. Memory of the API server is the growth since\nbefore the start of the nodes. The sum of all scenarios has the largest growth, and the times of the restarts\ninclude those of the API server.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "memory\tCPU\trequests\tp99\tlast\t  scenario")
	for _, s := range c.Shares {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t  %s\n", inDigits(s.ServerMemory), inDigits(s.ServerCPU), inDigits(s.Requests), inDigits(s.P99), inDigits(s.Last), s.Scenario)
	}
	fmt.Fprintf(t, "%.2f\t%.2f\t%.2f\t%.2f\t\t  aim\n", aimMemory, aimCPU, aimRequests, aimTime)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nmemory of the process per node: %s, aim %.2f\n", inDigits(c.Memory), aimMemory)
	for _, text := range c.Missed {
		fmt.Fprintln(w, "aim missed:", text)
	}
	return nil
}
