package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
)

// program is the program of a figure.
type program string

const (
	clientmountd program = "clientmountd"
	nnfDM        program = "nnf-dm"
	nnfDeploy    program = "nnf-deploy"
)

// report is the result of the benchmark.
type report struct {
	Machine figures.Machine `json:"machine"`
	Figures []figure        `json:"figures"`

	about program // program of the figures that are added
}

// figure is a measured quantity. The target is an upper bound for the median or for the
// maximum, or a lower bound for the median.
type figure struct {
	Program program  `json:"program"`
	Name    string   `json:"name"`
	Unit    string   `json:"unit,omitempty"`
	Target  *float64 `json:"target,omitempty"` // nil: for information only
	Worst   bool     `json:"worst,omitempty"`  // the target bounds the maximum
	Least   bool     `json:"least,omitempty"`  // the target is a lower bound
	Median  float64  `json:"median"`
	Minimum float64  `json:"min"`
	Maximum float64  `json:"max"`
	Runs    int      `json:"runs"`
	OK      bool     `json:"ok"`
	How     string   `json:"how"`
}

// noTarget marks a figure without a target.
const noTarget = -1

// add adds the figure of a series of values.
func (r *report) add(name, unit string, target float64, worst bool, values []float64, how string) {
	f := figure{Program: r.about, Name: name, Unit: unit, Worst: worst, Median: figures.Quantile(values, 0.5), Runs: len(values), OK: true, How: how}
	f.Minimum, f.Maximum = figures.Quantile(values, 0), figures.Quantile(values, 1)
	if target != noTarget {
		f.Target = &target
		f.OK = len(values) > 0 && f.judged() <= target
	}
	r.Figures = append(r.Figures, f)
}

// addLeast is add with a lower bound as the target.
func (r *report) addLeast(name, unit string, target float64, values []float64, how string) {
	r.add(name, unit, target, false, values, how)
	f := &r.Figures[len(r.Figures)-1]
	f.Least, f.OK = true, f.Median >= target
}

// judged returns the value that is compared with the target.
func (f figure) judged() float64 {
	if f.Worst {
		return f.Maximum
	}
	return f.Median
}

func (r *report) misses() (n int) {
	for _, f := range r.Figures {
		if !f.OK {
			n++
		}
	}
	return n
}

// write prints the report as a table or as JSON.
func (r *report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintln(w, r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tTARGET\tMEASURED\t\tMIN..MAX\tRUNS\tHOW")
	list := slices.Clone(r.Figures)
	slices.SortStableFunc(list, func(a, b figure) int { return strings.Compare(string(a.Program), string(b.Program)) })
	about := program("")
	for _, f := range list {
		if f.Program != about {
			about = f.Program
			fmt.Fprintf(t, "%s\t\t\t\t\t\t\n", about)
		}
		target, verdict := "", ""
		if f.Target != nil {
			if target, verdict = "≤ "+number(*f.Target), "ok"; !f.OK {
				verdict = "MISS"
			}
			if f.Least {
				target = "≥ " + number(*f.Target)
			}
		}
		spread := ""
		if f.Runs > 1 {
			spread = number(f.Minimum) + ".." + number(f.Maximum)
		}
		name := f.Name
		if f.Unit != "" {
			name += ", " + f.Unit
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", name, target, number(f.judged()), verdict, spread, f.Runs, f.How)
	}
	return t.Flush()
}

// number formats v with about three digits.
func number(v float64) string {
	switch {
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) < 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
