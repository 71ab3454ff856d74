package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// report is the result of a simulation.
type report struct {
	Machine figures.Machine `json:"machine"`
	Nodes   int             `json:"nodes"`
	Memory  float64         `json:"memory_kb_per_node"` // of this process, with the connection
	Rows    []*row          `json:"rows"`

	ServerRSS  float64     `json:"server_rss_mb"` // of the API server before the nodes start
	Comparison *comparison `json:"comparison,omitempty"`
}

// row is the result of a scenario. Times are in seconds; counts are per node.
type row struct {
	Scenario string  `json:"scenario"`
	Nodes    int     `json:"nodes"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	Last     float64 `json:"last"` // from the start of the scenario until the last node was done
	How      string  `json:"how"`  // what the times are

	Requests  map[string]float64 `json:"requests"` // by class; "total" is their sum
	Failed    map[string]float64 `json:"failed"`   // by the kind of failure; "total" is their sum
	Bookmarks float64            `json:"bookmarks"`
	Sent      float64            `json:"sent_bytes"`
	Received  float64            `json:"received_bytes"`
	Peak      float64            `json:"peak"` // largest share of nodes that connected within one second

	ServerCPU float64  `json:"server_cpu_ms"` // per node
	ServerRSS float64  `json:"server_rss_mb"`
	Late      float64  `json:"late"`            // longest time by which the simulation was late, in seconds
	Others    float64  `json:"others"`          // share of the time of all processors that other programs used
	Wrong     []string `json:"wrong,omitempty"` // failed checks

	started   time.Time
	restarted bool     // the server has a new process
	among     int      // number of nodes that shared the load; 0: all
	errors    []string // records of level error
	server    lab.Usage
	perNode   []counts
	sum       counts
	checks    []func(*row)
}

// setTimes sets the times from those of the nodes, in seconds.
func (r *row) setTimes(times []float64, last float64) {
	r.P50, r.P99, r.Last = figures.Quantile(times, 0.5), figures.Quantile(times, 0.99), last
}

// finish computes the figures per node.
func (r *row) finish(server lab.Usage, peak float64) {
	n := float64(len(r.perNode))
	if r.among > 0 {
		n = float64(r.among)
	}
	r.Requests = map[string]float64{"total": float64(r.sum.total()) / n}
	for i, name := range classNames {
		r.Requests[name] = float64(r.sum.requests[i]) / n
	}
	r.Failed = map[string]float64{"total": float64(r.sum.failures()) / n}
	for i, name := range failureNames {
		r.Failed[name] = float64(r.sum.failed[i]) / n
	}
	r.Bookmarks, r.Sent, r.Received, r.Peak = float64(r.sum.bookmarks)/n, float64(r.sum.sent)/n, float64(r.sum.received)/n, peak
	r.ServerCPU = float64((server.CPU - r.server.CPU).Microseconds()) / 1000 / n
	r.ServerRSS = float64(server.RSS) / 1e6
}

// maxWrong is the number of failed checks of a row that are reported.
const maxWrong = 5

// wrong adds failed checks.
func (r *row) wrong(texts []string) {
	for _, text := range texts {
		if len(r.Wrong) < maxWrong {
			r.Wrong = append(r.Wrong, text)
		} else if len(r.Wrong) == maxWrong {
			r.Wrong = append(r.Wrong, "and more")
		}
	}
}

// each checks the counts of each node.
func (r *row) each(what string, ok func(counts) bool) {
	for i, c := range r.perNode {
		if !ok(c) {
			r.wrong([]string{fmt.Sprintf("%s: node %d: %+v", what, i, c)})
		}
	}
}

// failures returns the failed checks of all rows.
func (r *report) failures() (out []string) {
	for _, row := range r.Rows {
		for _, text := range row.Wrong {
			out = append(out, row.Scenario+": "+text)
		}
	}
	if r.Comparison != nil {
		for _, text := range r.Comparison.Reference.failures() {
			out = append(out, "reference: "+text)
		}
	}
	return out
}

// legend explains the columns of the table.
const legend = `
requests, failed, bookmarks, kB: of clientmountd, per node; in the row of copy offload of nnf-dm, per node that copies;
  requests are counted where they leave client-go, with retries, and kB at the sockets, with TLS
CPU ms: CPU time of the API server per node, with the requests of the manager of the jobs, the rabbits and the noisy client
RSS MB: resident memory of the API server at the end of the scenario
others: share of the processors of this machine that other programs used; above a few percent, do not compare the times
peak/s: largest share of the nodes that opened a connection within one second
late: longest time by which the simulation acted too late, because it waited for a processor; the peak and the
  times include it

`

// write prints the report as a table or as JSON.
func (r *report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintln(w, r.Machine)
	if err := r.table(w); err != nil {
		return err
	}
	fmt.Fprint(w, legend)
	r.explain(w)
	if r.Comparison == nil {
		return nil
	}
	return r.Comparison.write(w)
}

// table prints one line per scenario.
func (r *report) table(w io.Writer) error {
	fmt.Fprintf(w, "%d nodes in one process, %.0f kB each; API server and etcd in another process, etcd in memory, %.0f MB before the start\n\n", r.Nodes, r.Memory, r.ServerRSS)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "nodes\tp50 s\tp99 s\tlast s\trequests\tfailed\tbookmarks\tkB sent\tkB recv\tpeak/s\tlate s\tCPU ms\tRSS MB\tothers\t  scenario")
	for _, row := range r.Rows {
		name := row.Scenario
		if len(row.Wrong) > 0 {
			name += " (WRONG)"
		}
		fmt.Fprintf(t, "%d\t%.3f\t%.3f\t%.1f\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\t%.0f%%\t%.2f\t%.2f\t%.0f\t%.0f%%\t  %s\n",
			row.Nodes, row.P50, row.P99, row.Last, row.Requests["total"], row.Failed["total"], row.Bookmarks, row.Sent/1000, row.Received/1000, 100*row.Peak,
			row.Late, row.ServerCPU, row.ServerRSS, 100*row.Others, name)
	}
	return t.Flush()
}

// explain prints what the times are, and the requests by class.
func (r *report) explain(w io.Writer) {
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s: %s.%s%s\n", row.Scenario, row.How, inWords("Requests", classNames[:], row.Requests), inWords("Failed", failureNames[:], row.Failed))
	}
}

// inWords lists the counts above 0, in the order of the names.
func inWords(title string, names []string, values map[string]float64) string {
	var list []string
	for _, name := range names {
		if n := values[name]; n > 0 {
			list = append(list, fmt.Sprintf("%s %.2f", name, n))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return " " + title + ": " + strings.Join(list, ", ") + "."
}
