package main

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestTarget(t *testing.T) {
	tests := []struct {
		name   string
		target float64
		worst  bool
		values []float64
		ok     bool
	}{
		{"median below, maximum above", 2, false, []float64{1, 1, 9}, true},
		{"the same, with a target for the maximum", 2, true, []float64{1, 1, 9}, false},
		{"equal", 2, true, []float64{2}, true},
		{"above", 2, false, []float64{1, 2.01, 3}, false},
		{"without target", noTarget, true, []float64{1e9}, true},
		{"target without values", 2, false, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r report
			r.add("x", "ms", tt.target, tt.worst, tt.values, "")
			if r.Figures[0].OK != tt.ok || (r.misses() == 0) != tt.ok {
				t.Errorf("%+v", r.Figures[0])
			}
		})
	}
}

func TestLowerBound(t *testing.T) {
	for median, ok := range map[float64]bool{39.9: false, 40: true, 100: true} {
		var r report
		r.addLeast("x", "", 40, []float64{median}, "")
		var b bytes.Buffer
		if err := r.write(&b, false); err != nil || r.Figures[0].OK != ok || !strings.Contains(b.String(), "≥ 40") {
			t.Errorf("%v: %+v, %s, %v", median, r.Figures[0], &b, err)
		}
	}
	var r report
	if r.addLeast("x", "", 40, nil, ""); r.misses() != 1 {
		t.Error("a figure without values meets its target")
	}
}

func TestWrite(t *testing.T) {
	r := report{Machine: figures.Machine{Cores: 2, Kernel: "6.1"}}
	r.add("own overhead", "ms", 2, false, []float64{1.234, 1, 99.95}, "by the log")
	r.add("writes", "", 4, true, []float64{4, 5}, "by a proxy")
	r.add("latency", "ms", noTarget, false, []float64{50}, "for information")
	var b bytes.Buffer
	if err := r.write(&b, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for i, want := range [][]string{
		{"2 cores", "Linux 6.1"},
		{"FIGURE", "TARGET", "MEASURED"},
		{"own overhead, ms ", "≤ 2 ", " 1.23 ", " ok ", " 1..100.0 ", " 3 ", "by the log"},
		{"writes ", "≤ 4 ", " 5 ", " MISS ", " 4..5 ", " 2 "},
		{"latency, ms ", " 50 ", " 1 "},
	} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %d lacks %q: %s", i, w, lines[i])
			}
		}
	}
	if strings.Contains(lines[4], "ok") || strings.Contains(lines[4], "≤") {
		t.Errorf("a figure without target has a result: %s", lines[4])
	}

	b.Reset()
	if err := r.write(&b, true); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Figures) != 3 || back.Figures[1].Maximum != 5 || back.Figures[2].Target != nil {
		t.Errorf("%v %+v", err, back)
	}
}

// Figures are grouped by program.
func TestWriteGroups(t *testing.T) {
	var r report
	for _, p := range []program{nnfDM, clientmountd, nnfDM} {
		r.about = p
		r.add("of "+string(p), "", noTarget, false, []float64{1}, "")
	}
	var b bytes.Buffer
	if err := r.write(&b, false); err != nil {
		t.Fatal(err)
	}
	var first []string
	for line := range strings.Lines(b.String()) {
		first = append(first, strings.TrimSpace(strings.SplitN(line, "  ", 2)[0]))
	}
	want := []string{"clientmountd", "of clientmountd", "nnf-dm", "of nnf-dm", "of nnf-dm"}
	if !slices.Equal(first[2:], want) {
		t.Errorf("%q, want %q", first, want)
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		args string
		code int
	}{
		{"", -1}, {"--json --check", -1}, {"--mounts=3 --window=1s", -1},
		{"--clients=5 --connections=1 --polls=1 --waits=1", -1},
		{"--soak --lives=12 --creates=12 --samples=6 --idle=1m", -1}, {"--soak --lives=5 --samples=6", 2}, {"--samples=5", 2}, {"--idle=0s", 2},
		{"--polls=0", 2}, {"--help", 0}, {"--mounts=0", 2}, {"--window=0s", 2}, {"--nosuch", 2}, {"word", 2},
	}
	for _, tt := range tests {
		if _, code := parse(strings.Fields(tt.args)); code != tt.code {
			t.Errorf("%q: code %d, want %d", tt.args, code, tt.code)
		}
	}
	o, _ := parse(nil)
	if o.settle.Seconds() != 90 || o.window.Seconds() != 120 || o.runs != 30 || o.starts != 20 || o.processes != 5000 ||
		o.lifeCount != 10_000 || o.createCount != 100_000 || o.idleTime.Minutes() != 30 ||
		o.clients != 1000 || o.connections != 5000 || o.polls != 2000 || o.waits != 100 {
		t.Errorf("the targets are for other defaults: %+v", o)
	}
}

func TestSlope(t *testing.T) {
	tests := []struct {
		name         string
		x, y         []float64
		slope, error float64
	}{
		{"a line", []float64{0, 1, 2, 3}, []float64{5, 7, 9, 11}, 2, 0},
		{"constant", []float64{1, 2, 3}, []float64{7, 7, 7}, 0, 0},
		{"a step that is no slope", []float64{0, 1, 2, 3}, []float64{1, 0, 0, 1}, 0, math.Sqrt(0.5 / 5)},
		{"two points", []float64{0, 2}, []float64{0, 1}, 0.5, math.Inf(1)},
	}
	for _, tt := range tests {
		b, e := slope(tt.x, tt.y)
		if math.Abs(b-tt.slope) > 1e-9 || !(math.Abs(e-tt.error) < 1e-9 || e == tt.error) {
			t.Errorf("%s: %v ± %v, want %v ± %v", tt.name, b, e, tt.slope, tt.error)
		}
	}
}

// A daemon that loses memory with each of its tasks misses the target, one that has grown at the start does not.
func TestGrowth(t *testing.T) {
	for _, tt := range []struct {
		name string
		rss  func(i int) int64
		ok   bool
	}{
		{"loses memory", func(i int) int64 { return 8e6 + int64(i)*3000 }, false},
		{"has grown", func(i int) int64 { return 8e6 + int64(min(i, 9))*100_000 }, true},
	} {
		l := load{total: 100, done: 100, busy: time.Hour}
		for i := range 20 {
			l.samples = append(l.samples, sample{time.Duration(i) * 3 * time.Minute, lab.Usage{RSS: tt.rss(i), Anonymous: tt.rss(i)}})
		}
		var r report
		l.report(&r)
		for _, f := range r.Figures {
			if f.Unit == "kB/h" && f.OK != tt.ok {
				t.Errorf("%s: %+v", tt.name, f)
			}
		}
	}
}

// A load that took too long misses its target.
func TestShortLoad(t *testing.T) {
	l := load{what: "lives", total: 100, done: 99, busy: time.Hour, samples: make([]sample, 6)}
	var r report
	l.report(&r)
	if r.Figures[0].OK || r.Figures[0].Median != 99 {
		t.Errorf("%+v", r.Figures[0])
	}
}

// Open files and threads must not grow in the second half.
func TestConstant(t *testing.T) {
	for last, ok := range map[int]bool{9: true, 10: true, 11: false} {
		l := load{total: 100, done: 100, busy: time.Hour}
		for i := range 20 {
			u := lab.Usage{Files: 10, Threads: 10}
			if i == 0 { // the first half does not count
				u = lab.Usage{Files: 7, Threads: 7}
			}
			if i == 19 {
				u = lab.Usage{Files: last, Threads: last}
			}
			l.samples = append(l.samples, sample{time.Duration(i) * time.Minute, u})
		}
		var r report
		l.report(&r)
		for _, f := range r.Figures {
			if (f.Name == "open files" || f.Name == "threads") && f.OK != ok {
				t.Errorf("%d at the end: %+v", last, f)
			}
		}
	}
}
