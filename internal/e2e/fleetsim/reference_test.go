package main

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/node"
)

// withReference is program, with the reference fleet.
func withReference(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := program(t, append(args, "--reference")...)
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", filepath.Join(filepath.Dir(cmd.Path), referenceProgram), ".")
	build.Dir, build.Env = "reference", append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return cmd
}

// The reference fleet works: it sends the requests of the reference daemon, and does its
// jobs. Our nodes send fewer requests.
func TestReference(t *testing.T) {
	t.Parallel()
	cmd := withReference(t, "--json", "--nodes=20", "--only=compare", "--spread=1s", "--steady=0s")
	r, progress := result(t, cmd)
	if strings.Contains(progress, "reflector") {
		t.Errorf("the log of client-go is printed: %s", progress)
	}
	own := map[string]*row{}
	for _, row := range r.Rows {
		own[row.Scenario] = row
	}
	c := r.Comparison
	if c == nil || len(c.Reference.Rows) != 7 || len(c.Shares) != 8 || c.Memory == nil {
		t.Fatalf("the comparison is incomplete: %+v", c)
	}
	for i, want := range []struct {
		name     string
		requests map[string]float64 // at least, per node
		fewer    bool               // our nodes always send fewer
	}{
		{"start, all at once", map[string]float64{"discovery": 3, "list": 2, "watch": 2}, true},
		{"start, spread over 1s", map[string]float64{"discovery": 3, "list": 2, "watch": 2}, true},
		{"steady state, 0s", nil, false},
		{"first job on all nodes", map[string]float64{"discovery": 1, "list": 1, "watch": 1, "update": 6}, true},
		{"second job on all nodes", map[string]float64{"update": 6}, false},
		{"API server restarted by SIGTERM", map[string]float64{"watch": 3}, false},
		{"API server restarted by SIGKILL", map[string]float64{"watch": 3}, false},
	} {
		row, q := c.Reference.Rows[i], c.Shares[i]
		t.Logf("%-34s p99 %.3f s, %v", row.Scenario, row.P99, row.Requests)
		ours := own[want.name]
		if row.Scenario != want.name || q.Scenario != want.name || row.Nodes != 20 || len(row.Wrong) > 0 || ours == nil {
			t.Fatalf("%+v, %+v; want %s", row, q, want.name)
		}
		for class, n := range want.requests {
			if row.Requests[class] < n {
				t.Errorf("%s: %.2f requests of class %s per node, want %.0f", want.name, row.Requests[class], class, n)
			}
		}
		if row.Requests["patch"]+row.Requests["profile"] > 0 || row.Requests["update"] > 0 != (want.requests["update"] > 0) {
			t.Errorf("%s: %v", want.name, row.Requests)
		}
		if want.fewer && ours.Requests["total"] >= row.Requests["total"] {
			t.Errorf("%s: our nodes send %v requests, those of the reference %v", want.name, ours.Requests, row.Requests)
		}
		if all := row.Requests["total"]; all > 0 && (q.Requests == nil || math.Abs(*q.Requests-ours.Requests["total"]/all) > 1e-9) {
			t.Errorf("%s: share %v of %v, %v", want.name, q.Requests, ours.Requests, row.Requests)
		}
		if works := want.requests != nil; works != (row.P99 > 0 && row.Last > 0 && row.Sent > 0 && row.Received > 0) || row.ServerRSS < 10 {
			t.Errorf("implausible: %+v", row)
		}
	}
}

func TestCompareReports(t *testing.T) {
	figures := func(name string, rss, cpu, requests, p99, last float64) *row {
		return &row{Scenario: name, ServerRSS: rss, ServerCPU: cpu, Requests: map[string]float64{"total": requests}, P99: p99, Last: last}
	}
	ours := &report{Memory: 50, ServerRSS: 100, Rows: []*row{
		figures("start", 110, 1, 1, 0.5, 1), figures("failing", 900, 900, 900, 900, 900), figures("steady", 90, 1, 0, 0, 0),
	}}
	c := compareReports(ours, &report{Memory: 200, ServerRSS: 200, Rows: []*row{
		figures("start", 240, 8, 10, 2.5, 4), figures("steady", 290, 2, 0, 0, 0), figures("other", 999, 999, 999, 999, 999),
	}})
	var got []string
	for _, s := range c.Shares {
		got = append(got, strings.Join([]string{s.Scenario, inDigits(s.ServerMemory), inDigits(s.ServerCPU), inDigits(s.Requests), inDigits(s.P99), inDigits(s.Last)}, " "))
	}
	// The growth of the API server is the largest one: 10 and 90 MB.
	want := []string{"start 0.25 0.12 0.10 0.20 0.25", "steady 0.00 0.50 - - -", overall + " 0.11 0.20 0.10 0.20 0.25"}
	if !slices.Equal(got, want) || *c.Memory != 0.25 {
		t.Errorf("shares %q, %v; want %q", got, *c.Memory, want)
	}
	if want := []string{"CPU time of the API server: 0.20 instead of 0.17", "time until 99 % of the nodes are done: 0.20 instead of 0.17"}; !slices.Equal(c.Missed, want) {
		t.Errorf("missed %q, want %q", c.Missed, want)
	}
	c.Reference.Rows[0].Wrong = []string{"node 1"}
	ours.Comparison = c
	if got := ours.failures(); !slices.Equal(got, []string{"reference: start: node 1"}) {
		t.Errorf("failures: %q", got)
	}
	var out strings.Builder
	if err := ours.write(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"start (WRONG)\n", "-  steady\n", "0.25  all of them\n", "aim missed: CPU time"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// Events of the reference process reach the daemon of their node. Late ones of an earlier
// daemon do not.
func TestRecord(t *testing.T) {
	d := &running{traffic: newTraffic(), started: time.Unix(100, 0), synced: make(chan struct{})}
	s := &simulated{name: "node"}
	p := &reference{nodes: []*simulated{s, {}}, daemons: []*running{d, nil}, errors: new(errorLog)}
	events := `
{"event":"connection","at":101000000000}
{"event":"request","at":101000000000,"method":"GET","url":"/apis/d/v1/namespaces/n/clientmounts?limit=500","status":200}
{"event":"request","at":101000000000,"method":"PUT","url":"/apis/d/v1/namespaces/n/clientmounts/a","status":409}
{"event":"request","at":101000000000,"method":"GET","url":"/apis"}
{"event":"request","at":99000000000,"method":"GET","url":"/apis"}
{"event":"request","at":101000000000,"method":"GET","url":"/apis","node":1}
{"event":"ready","at":102000000000}
{"event":"follows","at":103000000000}
{"event":"lost","at":99000000000}
{"event":"mounted","at":103000000000}
{"event":"unmounted","at":103000000000}
{"event":"mounted","at":103000000000}
{"event":"counts","sent":5,"received":6,"bookmarks":7}
{"event":"failed","at":103000000000,"error":"no file"}
`
	if err := p.read(strings.NewReader(events)); err == nil || err.Error() != "EOF" {
		t.Fatal(err)
	}
	want := counts{requests: [classes]int64{list: 1, update: 1, discovery: 1}, failed: [failures]int64{conflict: 1, noResponse: 1}, bookmarks: 7, sent: 5, received: 6}
	if got := d.counts(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	select {
	case <-d.synced:
	default:
		t.Error("not ready")
	}
	if d.ready != time.Unix(102, 0) || d.following() != time.Unix(103, 0) || len(d.connected) != 1 {
		t.Errorf("ready %v, follows %v, %d connections", d.ready, d.following(), len(d.connected))
	}
	if mounted, _, mounts := s.machine.state(); mounted != 1 || mounts != 2 {
		t.Errorf("%d mounted, %d mounts", mounted, mounts)
	}
	if got := p.errors.take(); len(got) != 1 || !strings.Contains(got[0], "node: no file") {
		t.Errorf("errors: %q", got)
	}
	for _, line := range []string{`{"event":"unheard"}`, `{"node":2}`, `{"node":-1}`, `x`, `{"event":"request","url":":"}`} {
		if err := p.read(strings.NewReader(line)); err == nil || err.Error() == "EOF" {
			t.Errorf("%s: %v", line, err)
		}
	}
	s.machine.set(false)
	if s.machine.find(func(node.Mount) bool { return true }) != nil {
		t.Error("mounted")
	}
}
