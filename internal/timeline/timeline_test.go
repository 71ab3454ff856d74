package timeline

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

var update = flag.Bool("update", false, "write the golden texts instead of comparing")

// golden compares text with a file in testdata.
func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(have, want) {
		t.Errorf("%s (%v): have:\n%s", path, err, have)
	}
}

// The bars of a node with a step that was retried, of a node with a step that failed, and of an
// ClientMount that is not ready.
func TestBars(t *testing.T) {
	doc := sample.Node("compute-00043", 42)
	running := sample.Node("compute-00043", 7).Lives[0]
	running.Workflow, running.Ready, running.Ended, running.Dropped = "", nil, nil, 3
	running.Steps = running.Steps[:5]
	last := &running.Steps[4]
	last.Failed, last.Tries, last.Error = true, 2, "unable to activate: volume group \x1b[31mvg\n "+strings.Repeat("é", 100)
	doc.Lives = append(doc.Lives, running)
	var b bytes.Buffer
	if err := Bars(&b, doc); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	golden(t, "bars.txt", b.Bytes())
}

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		ms   float64
		want string
	}{
		{-5, "0ms"}, {0, "0ms"}, {999.4, "999ms"}, {999.6, "1.00s"}, {9994, "9.99s"}, {9996, "10.0s"}, {59940, "59.9s"}, {59960, "1m00s"},
		{3599400, "59m59s"}, {3599600, "1h00m"}, {7320000, "2h02m"},
	} {
		if have := Duration(time.Duration(tt.ms * float64(time.Millisecond))); have != tt.want {
			t.Errorf("%v ms: %s, want %s", tt.ms, have, tt.want)
		}
	}
}

// traceFile is what Perfetto reads of a trace.
type traceFile struct {
	TraceEvents []struct {
		Ph, Name, Cat string
		Ts, Dur       *float64
		Pid, Tid      int
		Args          map[string]any
	}
}

// The events of a thread do not overlap, each step is one event, and all threads have a name.
func TestTrace(t *testing.T) {
	nodes := sample.Fleet(100)
	var b bytes.Buffer
	if err := Trace(&b, nodes); err != nil {
		t.Fatal(err)
	}
	var f traceFile
	if err := json.Unmarshal(b.Bytes(), &f); err != nil {
		t.Fatal(err)
	}
	type thread struct{ pid, tid int }
	ends, named, count := map[thread]float64{}, map[thread]bool{}, 0
	for _, e := range f.TraceEvents {
		id := thread{e.Pid, e.Tid}
		switch {
		case e.Ph == "M" && e.Name == "thread_name":
			named[id] = true
		case e.Ph == "X":
			count++
			if !named[id] || e.Ts == nil || e.Dur == nil || *e.Ts < ends[id] || *e.Dur < 0 {
				t.Fatalf("invalid event: %+v", e)
			}
			ends[id] = *e.Ts + *e.Dur
		}
	}
	steps := 0
	for _, n := range nodes {
		steps += len(n.Lives[0].Steps)
	}
	if count != steps {
		t.Errorf("%d events for %d steps", count, steps)
	}
	b.Reset()
	if err := Trace(&b, []*mountstate.Timeline{sample.Node("compute-00043", 42)}); err != nil {
		t.Fatal(err)
	}
	golden(t, "trace.json", b.Bytes())
	b.Reset()
	if err := Trace(&b, nil); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("%v: %s", err, b.String())
	}
}

// A document of a compromised node is bounded, and no times are impossible.
func TestBound(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	step := mountstate.Step{Path: long, Phase: long, Kind: long, Name: long, Error: long, Started: sample.Zero, Finished: sample.Zero.Add(-time.Hour), Seconds: -1}
	life := mountstate.Life{ClientMount: long, Workflow: long, UID: long, Steps: slices.Repeat([]mountstate.Step{step}, 400)}
	doc := &mountstate.Timeline{Lives: slices.Repeat([]mountstate.Life{life}, 100)}
	for i := range doc.Lives {
		doc.Lives[i].Steps = slices.Clone(doc.Lives[i].Steps)
	}
	Bound(doc)
	data, err := json.Marshal(doc)
	if err != nil || len(data) > 1<<20 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	s := doc.Lives[0].Steps[0]
	if s.Finished.Before(s.Started) || s.Seconds < 0 || s.Tries != 1 || doc.Lives[1].Dropped != 288 {
		t.Errorf("%+v, %d steps dropped", s, doc.Lives[1].Dropped)
	}
}

// The times of one compromised node do not prevent the trace of all nodes. The years are valid in the
// document of a node, but two of them not in UTC.
func TestBoundTimes(t *testing.T) {
	for _, at := range []string{"0000-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00Z"} {
		doc, err := mountstate.ParseTimeline([]byte(`{"version": 1, "lives": [{"started": "` + at + `", "ready": "` + at + `", "ended": "` + at + `",
			"steps": [{"phase": "mount", "name": "x", "started": "` + at + `", "finished": "2026-03-02T08:15:43Z"}, {"phase": "mount", "name": "y", "started": "2026-03-02T08:15:43Z", "finished": "` + at + `"}]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		Bound(doc)
		var b bytes.Buffer
		if err := Trace(&b, []*mountstate.Timeline{sample.Fleet(1)[0], doc}); err != nil || !json.Valid(b.Bytes()) {
			t.Errorf("%s: %v", at, err)
		}
		life := &doc.Lives[0]
		for _, got := range []time.Time{life.Started, *life.Ready, *life.Ended, life.Steps[0].Started, life.Steps[0].Finished, life.Steps[1].Finished} {
			if year := got.UTC().Year(); year < 1970 || year > 2200 {
				t.Errorf("%s: %v", at, got)
			}
		}
	}
}

// A workflow that was created again has the same names of ClientMounts: only the last one remains.
func TestLatest(t *testing.T) {
	again := sample.Node("a", 2).Lives[0]
	again.UID = "new"
	again.Started = again.Started.Add(time.Hour)
	other := sample.Node("a", 3).Lives[0]
	other.ClientMount, other.Workflow = "other", "w"
	doc := sample.Node("a", 1)
	doc.Lives = append([]mountstate.Life{again}, append(doc.Lives, other)...)
	Latest(doc)
	if len(doc.Lives) != 2 || doc.Lives[0].UID != "new" {
		t.Errorf("%+v", doc.Lives)
	}
	Select(doc, "w")
	if len(doc.Lives) != 1 || doc.Lives[0].ClientMount != "other" {
		t.Errorf("%+v", doc.Lives)
	}
}

func TestStatistics(t *testing.T) {
	var docs []*mountstate.Timeline
	for i := range 100 {
		at := sample.Zero
		step := func(name string, length time.Duration) mountstate.Step {
			s := mountstate.Step{Phase: "mount", Kind: "mount", Name: name, Started: at, Finished: at.Add(length), Seconds: length.Seconds(), Tries: 1, Failed: name == "b" && i == 5}
			at = s.Finished
			return s
		}
		steps := []mountstate.Step{step("b", time.Duration(i+1)*time.Second)}
		if i%2 == 0 {
			steps = append(steps, step("a", time.Second))
		}
		docs = append(docs, &mountstate.Timeline{Node: string(rune('A'+i/26)) + string(rune('a'+i%26)), Lives: []mountstate.Life{{Steps: steps}}})
	}
	var nodes []Node
	for _, d := range docs {
		nodes = append(nodes, Summarize(d))
	}
	list := Statistics(nodes, Order(docs))
	if len(list) != 3 || !list[0].Total() || list[1].Name != "b" || list[2].Name != "a" {
		t.Fatalf("%+v", list)
	}
	b, a := list[1], list[2]
	if b.Nodes != 100 || b.P50 != 50 || b.P95 != 95 || b.Max != 100 || strings.Join(b.Slowest, " ") != "Dq Dr Ds Dt Du Dv" || strings.Join(b.Failed, "") != "Af" {
		t.Errorf("%+v", b)
	}
	if a.Nodes != 50 || a.Max != 1 || len(a.Slowest) != 0 {
		t.Errorf("%+v", a)
	}
	if list[0].Max != 99+1 {
		t.Errorf("%+v", list[0])
	}
}

// Nodes cannot add any number of rows.
func TestOrderIsBounded(t *testing.T) {
	doc := sample.Node("a", 1)
	for i := range 300 {
		doc.Lives[0].Steps = append(doc.Lives[0].Steps, mountstate.Step{Phase: "mount", Name: strings.Repeat("x", i+1)})
	}
	if n := len(Order([]*mountstate.Timeline{doc, sample.Node("b", 2)})); n > maxKeys+2 {
		t.Errorf("%d keys", n)
	}
}
