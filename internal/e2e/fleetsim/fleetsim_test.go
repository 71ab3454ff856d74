package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// program builds the simulation and returns a command that runs it.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fleetsim")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "DEVCLUSTER="+filepath.Join(root, "bin", "devcluster"))
	return cmd
}

// result runs the simulation, which must succeed, and returns its report and its progress.
func result(t *testing.T, cmd *exec.Cmd) (r report, progress string) {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if strings.Contains(stderr.String(), "not possible on this machine") {
		require.Missing(t, stderr.String())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r, stderr.String()
}

// calls are the requests per node, of each class.
type calls map[string]float64

// wantedRow is what the row of a scenario must contain.
type wantedRow struct {
	name        string
	nodes       int // 0: depends on the load balancer
	least, most calls
}

var (
	startCalls = calls{"list": 1, "watch": 1}
	lifeCalls  = calls{"profile": 2, "patch": 4}
	// A node reports progress if the server is slow. The program checks the exact number.
	slowLife = calls{"profile": 2, "patch": 6}
)

// Starts, jobs and copies of a fleet of 300 nodes.
func TestFleet(t *testing.T) {
	t.Parallel()
	const nodes, part = 300, 60
	testFleet(t, nodes, []string{"--only=load", "--sample=60", "--spread=2s", "--steady=1s"}, []wantedRow{
		{"start, all at once", nodes, startCalls, startCalls},
		{"start, spread over 2s", nodes, startCalls, startCalls},
		{"steady state, 1s", nodes, calls{}, calls{}},
		{"first job on all nodes", nodes, lifeCalls, slowLife},
		{"second job on 60 nodes", part, lifeCalls, slowLife},
		{"job while a client lists all objects", part, lifeCalls, calls{"profile": 20, "patch": 20}},
		{"the same with flow control", part, lifeCalls, slowLife},
		{"job while 10 % of the nodes fail", part - part/10, calls{"profile": 2, "patch": 3}, calls{"profile": 4, "patch": 6}},
		{"copy offload, 8 copies per node", nodes / 5, calls{"create": 8, "watch": 1}, calls{"create": 8, "discovery": 3, "watch": 2, "list": 25, "other": 25}},
	})
}

// Failures and changes of the API server, with a fleet of 30 nodes. The test takes minutes,
// most of which the nodes wait before they connect again.
func TestOutages(t *testing.T) {
	t.Parallel()
	const nodes = 30
	// A slow server causes more attempts to follow it.
	again, most := calls{"watch": 1}, calls{"discovery": 15, "list": 5, "watch": 20, "other 4xx": 15}
	testFleet(t, nodes, []string{"--only=outages", "--steady=0s", "--outage=1s"}, []wantedRow{
		{"start, all at once", nodes, startCalls, startCalls},
		{"tokens of all nodes replaced", nodes, calls{"profile": 2, "patch": 1}, calls{"profile": 2 + maxUnauthorized, "patch": 4 + maxUnauthorized}},
		{"ClientMounts stored in another version", nodes, again, most},
		{"ClientMounts no longer served in a version", nodes, calls{"watch": 2, "discovery": 2}, most},
		{"API server restarted by SIGTERM", nodes, again, most},
		{"API server restarted by SIGKILL", nodes, again, most},
		{"API server down for 1s", nodes, again, most},
		{"API server killed 3 times in a row", nodes, again, most},
		{"one of two API servers lost", 0, calls{"watch": 0.1}, most},
		{"the lost API server is back", nodes, calls{"profile": 1, "patch": 2}, calls{"profile": 1, "patch": 3}},
	})
}

// testFleet runs the simulation. The figures that do not depend on the speed of the machine
// must be right, and no check of the program may fail.
func testFleet(t *testing.T, nodes int, args []string, rows []wantedRow) {
	t.Helper()
	cmd := program(t, append(args, "--json", fmt.Sprint("--nodes=", nodes))...)
	r, _ := result(t, cmd)
	t.Logf("%s\n%.0f kB per node", r.Machine, r.Memory)
	for i, want := range rows {
		if i >= len(r.Rows) {
			t.Fatalf("%d rows, want %q", len(r.Rows), want.name)
		}
		row := r.Rows[i]
		t.Logf("%-34s p50 %.3f s, p99 %.3f s, last %.1f s, %v", row.Scenario, row.P50, row.P99, row.Last, row.Requests)
		if row.Scenario != want.name || row.Nodes != want.nodes && want.nodes > 0 || row.Nodes == 0 || len(row.Wrong) > 0 || row.How == "" {
			t.Errorf("%+v, want %s for %d nodes", row, want.name, want.nodes)
		}
		for _, class := range classNames {
			if n := row.Requests[class]; n < want.least[class] || n > want.most[class] {
				t.Errorf("%s: %.2f requests of class %s per node, want %v to %v", want.name, n, class, want.least[class], want.most[class])
			}
		}
		if working := want.name != "steady state, 1s"; working != (row.P50 > 0) || working != (row.P99 >= row.P50 && row.Last > 0) || working && row.Sent <= 0 || row.ServerRSS < 10 || row.Others < 0 || row.Others > 1 {
			t.Errorf("implausible: %+v", row)
		}
		if row.Failed["conflict"] != 0 || row.Failed["other 4xx"] > want.most["other 4xx"] || (want.name == "tokens of all nodes replaced") && row.Failed["401"] < 1 {
			t.Errorf("%s: failed requests: %v", want.name, row.Failed)
		}
	}
	if len(r.Rows) != len(rows) || r.Nodes != nodes || r.Memory > 1000 || (r.Memory > 0) != strings.HasPrefix(rows[1].name, "start, spread") || r.Machine.Kernel == "" {
		t.Errorf("%d rows, %d nodes, %.0f kB per node, %+v", len(r.Rows), r.Nodes, r.Memory, r.Machine)
	}
}

// Ctrl-C ends the simulation, the API server and the reference fleet, and leaves no file.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	t.Run("fleet", func(t *testing.T) {
		t.Parallel()
		testInterrupt(t, program(t, "--nodes=10", "--steady=10m", "--spread=0s"), "steady state")
	})
	t.Run("reference", func(t *testing.T) {
		t.Parallel()
		testInterrupt(t, withReference(t, "--nodes=10", "--only=compare", "--steady=0s", "--spread=0s"), "reference: first job")
	})
}

// processesIn returns the processes in a mount namespace.
func processesIn(t *testing.T, namespace string) (list []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if to, err := os.Readlink(file); err == nil && to == namespace {
			list = append(list, file)
		}
	}
	return list
}

// progressOnly matches an output without errors.
var progressOnly = regexp.MustCompile(`^(fleetsim: \d\d:\d\d:\d\d .*\n)*$`)

// testInterrupt sends the signal when the progress has the text.
func testInterrupt(t *testing.T, cmd *exec.Cmd, at string) {
	t.Helper()
	dir := t.TempDir()
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(log.String(), at) {
		n, err := stderr.Read(buf)
		log.Write(buf[:n])
		if err != nil {
			break
		}
	}
	// All processes of the simulation are in the mount namespace of its child process.
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	namespace, _ := os.Readlink("/proc/" + strings.TrimSpace(string(children)) + "/ns/mnt")
	here, _ := os.Readlink("/proc/self/ns/mnt")
	if strings.Contains(log.String(), at) && (namespace == here || len(processesIn(t, namespace)) < 2) {
		t.Errorf("the API server is not in the mount namespace %q of process %s", namespace, children)
	}
	_ = cmd.Process.Signal(unix.SIGINT)
	rest, err := io.ReadAll(stderr)
	if err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if strings.Contains(log.String(), "not possible on this machine") {
		require.Missing(t, log.String())
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || !progressOnly.Match(rest) {
		t.Errorf("exit code %d, standard error %s%s", code, &log, rest)
	}
	if left := processesIn(t, namespace); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestUsage(t *testing.T) {
	for line, want := range map[string]int{
		"--help": 0, "--nodes=10": -1, "--nodes=9": 2, "--nodes=100000": 2, "--sample=9": 2, "--spread=-1s": 2, "--steady=-1s": 2, "--outage=-1s": 2, "--nods=1": 2, "extra": 2,
	} {
		if _, code := parse([]string{line}); code != want {
			t.Errorf("%s: %d, want %d", line, code, want)
		}
	}
}

func request(method, target string) *http.Request {
	u, err := url.Parse("https://server" + target)
	if err != nil {
		panic(err)
	}
	return &http.Request{Method: method, URL: u}
}

func TestClassOf(t *testing.T) {
	for line, want := range map[string]class{
		"GET /api":         discovery,
		"GET /apis":        discovery,
		"GET /apis/dws":    discovery,
		"GET /apis/dws/v1": discovery,
		"PUT /apis/dws/v1/namespaces/n/clientmounts/a":                         update,
		"GET /apis/nnf/v1/namespaces/default/nnfstorageprofiles?limit=500":     list,
		"GET /apis/dws/v1/namespaces/n/clientmounts":                           list,
		"GET /apis/dws/v1/namespaces/n/clientmounts?watch=true":                watch,
		"GET /apis/nnf/v1/namespaces/default/nnfstorageprofiles/a":             profile,
		"PATCH /apis/dws/v1/namespaces/n/clientmounts/a/status":                patch,
		"GET /apis/dws/v1/namespaces/n/clientmounts/a":                         other,
		"DELETE /apis/nnf/v1/namespaces/default/nnfstorageprofiles/a":          other,
		"GET /apis/nnf/v1/namespaces/default/nnfstorages/a":                    other,
		"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews":          other,
		"GET /apis/dws/v1/namespaces/n/clientmounts?resourceVersion=0&x=y":     list,
		"GET /apis/dws/v1/namespaces/n/clientmounts?sendInitialEvents&watch=1": watch,
		"GET /apis/lus/v1/lustrefilesystems":                                   list,
		"GET /apis/nnf/v1/namespaces/n/nnfdatamovements/a":                     other,
		"POST /apis/nnf/v1/namespaces/n/nnfdatamovements":                      create,
	} {
		method, target, _ := strings.Cut(line, " ")
		if got := classOf(request(method, target)); got != want {
			t.Errorf("%s: class %s, want %s", line, classNames[got], classNames[want])
		}
	}
}

// answer is a transport with one response.
type answer struct {
	status int
	body   io.Reader
	err    error
}

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{StatusCode: a.status, Body: io.NopCloser(a.body)}, nil
}

// pieces is a reader that returns one piece at each read.
type pieces []string

func (p *pieces) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	*p = (*p)[1:]
	return n, nil
}

// A plain watch follows from the response on, one that starts with the current objects
// from its first bookmark on. Bookmarks may be split between reads.
func TestTrafficOfWatch(t *testing.T) {
	for query, atOnce := range map[string]bool{"?watch=true": true, "?watch=true&sendInitialEvents=true": false} {
		tr := newTraffic()
		tr.wrap(answer{status: 200, body: &pieces{`{"type":"ADDED"}` + "\n", `{"type":"BOOK`, `MARK","object":{}}` + "\n" + bookmark + `,"object":{}}`, `{"type":"BOOKMAR`}})
		resp, err := tr.RoundTrip(request("GET", "/apis/dws/v1/namespaces/n/clientmounts"+query))
		if err != nil {
			t.Fatal(err)
		}
		var follows []bool
		var bookmarks []int64
		buf := make([]byte, 100)
		for {
			follows, bookmarks = append(follows, !tr.following().IsZero()), append(bookmarks, tr.counts().bookmarks)
			if _, err := resp.Body.Read(buf); err != nil {
				break
			}
		}
		if want := []bool{atOnce, atOnce, atOnce, true, true}; !slices.Equal(follows, want) {
			t.Errorf("%s: follows %v, want %v", query, follows, want)
		}
		if want := []int64{0, 0, 0, 2, 2}; !slices.Equal(bookmarks, want) {
			t.Errorf("%s: bookmarks %v, want %v", query, bookmarks, want)
		}
		if !tr.following().IsZero() {
			t.Errorf("%s: follows after the end of the watch", query)
		}
	}
}

func TestTrafficOfFailures(t *testing.T) {
	for _, tt := range []struct {
		answer
		want failure // failures: none
	}{
		{answer{status: 200, body: &pieces{}}, failures},
		{answer{err: errors.New("refused")}, noResponse},
		{answer{status: 503, body: &pieces{}}, serverError},
		{answer{status: 401, body: &pieces{}}, unauthorized},
		{answer{status: 404, body: &pieces{}}, refused},
		{answer{status: 429, body: &pieces{}}, overload},
		{answer{status: 409, body: &pieces{}}, conflict},
		{answer{status: 422, body: &pieces{}}, conflict},
	} {
		tr := newTraffic()
		tr.wrap(tt.answer)
		_, err := tr.RoundTrip(request("PATCH", "/apis/dws/v1/namespaces/n/clientmounts/a"))
		var want [failures]int64
		if tt.want < failures {
			want[tt.want] = 1
		}
		if c := tr.counts(); c.requests[patch] != 1 || c.total() != 1 || c.failed != want || err != tt.err {
			t.Errorf("%+v: %+v, %v", tt, c, err)
		}
	}
}

// Commands fail on the simulated machine where they would fail on a real one.
func TestMachine(t *testing.T) {
	var m machine
	run := func(line string, ok bool) {
		t.Helper()
		_, err := m.Run(t.Context(), node.Command{Argv: strings.Fields(line)})
		if (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
	}
	const mount, umount = "mount -t xfs /dev/mapper/a /mnt/nnf/a", "umount /mnt/nnf/a"
	run(mount, false) // the volume is not active
	run("lvchange --activate y a/b", true)
	m.setBroken(true)
	run(mount, false)
	m.setBroken(false)
	run(mount, true)
	run(mount, false)
	if mounted, active, mounts := m.state(); mounted != 1 || !active || mounts != 1 {
		t.Errorf("%d mounted, active %t, %d mounts", mounted, active, mounts)
	}
	run(umount, true)
	run(umount, false)
	run("lvchange --activate n a/b", true)
	run("mkfs.xfs /dev/mapper/a", false)
	if mounted, active, mounts := m.state(); mounted != 0 || active || mounts != 1 {
		t.Errorf("%d mounted, active %t, %d mounts", mounted, active, mounts)
	}
	if _, err := m.Run(t.Context(), node.Command{Shell: "true"}); err == nil {
		t.Error("a hook succeeded")
	}
}

// A row reports the nodes that sent more requests than allowed, and logged errors.
func TestChecks(t *testing.T) {
	good := counts{requests: [classes]int64{patch: maxWrites, profile: maxProfiles}}
	start := time.Now()
	quick := lifecycle{created: start, mounted: start.Add(progressAfter - 1), ended: start, unmounted: start.Add(1)}
	slow := quick
	slow.unmounted = start.Add(progressAfter)
	s := &simulation{manager: &manager{objects: map[string]*lifecycle{"a": &slow, "b": &quick, "c": &quick}}, fleet: &fleet{}}
	for _, name := range []string{"a", "b", "c"} {
		s.fleet.nodes = append(s.fleet.nodes, &simulated{name: name})
	}
	reported := good
	reported.requests[patch]++
	for name, change := range map[string]func(*counts){
		"writes":    func(c *counts) { c.requests[patch]++ },
		"profiles":  func(c *counts) { c.requests[profile]++ },
		"list":      func(c *counts) { c.requests[list]++ },
		"watch":     func(c *counts) { c.requests[watch]++ },
		"conflicts": func(c *counts) { c.failed[conflict]++ },
	} {
		bad := good
		change(&bad)
		r := &row{perNode: []counts{reported, bad, good}}
		if s.lifeCosts(r); len(r.Wrong) != 1 || !strings.Contains(r.Wrong[0], ": b: ") {
			t.Errorf("%s: %q", name, r.Wrong)
		}
	}
	r := &row{perNode: make([]counts, 20)}
	r.perNode[0].failed[overload] = 1
	if healthy(r); len(r.Wrong) > 0 {
		t.Errorf("healthy: %q", r.Wrong)
	}
	r.perNode[0].failed[overload] = 2
	if healthy(r); len(r.Wrong) != 1 {
		t.Errorf("two requests of a node are repeated: %q", r.Wrong)
	}
	r = &row{perNode: make([]counts, 20)}
	for i := range r.perNode {
		r.perNode[i].failed[serverError] = 1
	}
	if healthy(r); len(r.Wrong) != maxWrong+1 {
		t.Errorf("20 nodes with failed requests: %q", r.Wrong)
	}
	var l errorLog
	slog.New(&l).Warn("no error")
	slog.New(&l).Error("internal error", "panic", "x")
	r = &row{errors: l.take()}
	if healthy(r); len(r.Wrong) != 1 || !strings.Contains(r.Wrong[0], "internal error panic=x") || len(l.take()) != 0 {
		t.Errorf("a logged error: %q", r.Wrong)
	}
}

// A node that has mounted too often or that has something left is reported.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	for name, change := range map[string]func(*simulated){
		"":                          func(*simulated) {},
		"1 mounts made, expected 0": func(s *simulated) { s.machine.mounts++ },
		"0 mounts made, expected 1": func(s *simulated) { s.mounts++ },
		"left: 1 mounts":            func(s *simulated) { s.machine.table = make([]node.Mount, 1) },
		"volume active true":        func(s *simulated) { s.machine.active = true },
		"0 records, 1 unreadable":   func(s *simulated) { s.dir = filepath.Join(dir, "broken") },
	} {
		s := &simulated{name: "node", dir: filepath.Join(dir, "good")}
		change(s)
		records := clientmount.RecordsDirectory(s.runtime())
		if err := os.MkdirAll(records, 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(s.dir, "broken") {
			if err := os.WriteFile(filepath.Join(records, "a.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if wrong := clean([]*simulated{s}); (len(wrong) > 0) != (name != "") || !strings.Contains(strings.Join(wrong, ""), name) {
			t.Errorf("%q: %q", name, wrong)
		}
	}
}

func TestPeak(t *testing.T) {
	started := time.Now()
	list := []*traffic{nil} // of a stopped node
	for _, at := range []float64{-1, 0, 0.5, 0.9, 1, 1.4, 3, 3.1} {
		tr := newTraffic()
		tr.connected = []time.Time{started.Add(time.Duration(at * float64(time.Second)))}
		list = append(list, tr)
	}
	// From 0.5 s on: 0.5, 0.9, 1 and 1.4.
	if got := peak(list, started); got != 4.0/9 {
		t.Errorf("peak %v, want 4/9", got)
	}
	if got := perSecond(list, started); got != "3 2 0 2" {
		t.Errorf("connections in each second: %s", got)
	}
}

func TestLateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lateness
		stop := l.measure(t.Context())
		wait.Advance(time.Second)
		if late := l.take(); late != 0 {
			t.Errorf("late by %v, although nothing delays it", late)
		}
		l.note(3 * time.Second)
		l.note(2 * time.Second)
		if late, again := l.take(), l.take(); late != 3*time.Second || again != 0 {
			t.Errorf("late by %v, then %v", late, again)
		}
		stop()
	})
}

func TestParallel(t *testing.T) {
	failure := errors.New("failure")
	if err := parallel(3, []int{1, 2, 3, 4, 5}, func(i int) error {
		if i == 4 {
			return failure
		}
		return nil
	}); err != failure {
		t.Error(err)
	}
	done := make(chan int, 5)
	if err := parallel(3, []int{1, 2, 3, 4, 5}, func(i int) error { done <- i; return nil }); err != nil || len(done) != 5 {
		t.Error(err, len(done))
	}
}

// The requests of the nodes must be in their own flow schema, alone and without rejections.
func TestMisplaced(t *testing.T) {
	read := func(own, others, rejected int) flows {
		t.Helper()
		f, err := readFlows(fmt.Sprintf(`# TYPE apiserver_flowcontrol_dispatched_requests_total counter
apiserver_flowcontrol_dispatched_requests_total{flow_schema="nodes",priority_level="a"} %d
apiserver_flowcontrol_dispatched_requests_total{flow_schema="service-accounts",priority_level="workload-low"} %d
apiserver_flowcontrol_rejected_requests_total{flow_schema="nodes",priority_level="a",reason="queue-full"} %d
apiserver_flowcontrol_rejected_requests_total{flow_schema="nodes",priority_level="a",reason="time-out"} 0
apiserver_request_total{code="200"} 7
`, own, others, rejected))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	before, sent, failed := read(5, 10, 3), counts{requests: [classes]int64{patch: 4}}, counts{requests: [classes]int64{patch: 4}}
	failed.failed[overload] = 1
	for name, tt := range map[string]struct {
		after  flows
		schema string
		nodes  counts
		wrong  int
	}{
		"own schema":               {read(9, 16, 3), "nodes", sent, 0},
		"no schema":                {read(5, 20, 3), shared, sent, 0},
		"no schema, rejected":      {read(5, 19, 3), shared, failed, 0},
		"too few in the schema":    {read(8, 20, 3), "nodes", sent, 1},
		"others in the schema":     {read(15, 10, 3), "nodes", sent, 2},
		"rejected":                 {read(9, 16, 4), "nodes", sent, 1},
		"failed":                   {read(9, 16, 3), "nodes", failed, 1},
		"no schema, not with them": {read(9, 16, 3), shared, sent, 1},
	} {
		if got := misplaced(before, tt.after, tt.schema, tt.nodes, 6); len(got) != tt.wrong {
			t.Errorf("%s: %q, want %d texts", name, got, tt.wrong)
		}
	}
	if _, err := readFlows("apiserver_request_total{} 1\n"); err == nil {
		t.Error("metrics without flow control are accepted")
	}
}

// The manager repeats requests that a starting server could not serve, and no others.
func TestTemporary(t *testing.T) {
	for code, want := range map[int]bool{0: true, 401: true, 429: true, 500: true, 503: true, 403: false, 404: false, 409: false, 422: false} {
		err := fmt.Errorf("patch: %w", io.EOF)
		if code != 0 {
			err = fmt.Errorf("patch: %w", apierrors.NewGenericServerResponse(code, "patch", schema.GroupResource{}, "a", "", 0, false))
		}
		if got := temporary(err); got != want {
			t.Errorf("%d: %t, want %t", code, got, want)
		}
	}
}

// A job must see all of its copies run and succeed.
func TestMover(t *testing.T) {
	for name, change := range map[string]func(*mover){
		"":                 func(*mover) {},
		"saw 7":            func(m *mover) { delete(m.shown, "0") },
		"7 with progress":  func(m *mover) { delete(m.runs, "0") },
		"created 7":        func(m *mover) { m.made = m.made[1:] },
		"lost":             func(m *mover) { m.err = errors.New("lost") },
		`3 ended as "runn`: func(m *mover) { m.shown["3"] = client.Movement{ID: "3", State: client.Running} },
		`"failed"`: func(m *mover) {
			m.shown["3"] = client.Movement{ID: "3", State: client.Completed, Result: client.Failure}
		},
	} {
		m := &mover{node: &simulated{name: "node"}, shown: map[string]client.Movement{}, runs: map[string]bool{}}
		for i := range batch {
			id, percent := fmt.Sprint(i), int32(50)
			m.made = append(m.made, id)
			m.show([]client.Movement{{ID: id, State: client.Running, Percent: &percent}})
			m.show([]client.Movement{{ID: id, State: client.Completed, Result: client.Success}})
		}
		change(m)
		if wrong := m.wrong(); (len(wrong) > 0) != (name != "") || !strings.Contains(strings.Join(wrong, ""), name) {
			t.Errorf("%q: %q", name, wrong)
		}
	}
}

// The table marks rows with failed checks, and explains the times.
func TestTable(t *testing.T) {
	r := report{Nodes: 2, Rows: []*row{
		{Scenario: "start", Nodes: 2, P50: 0.25, How: "until ready", perNode: make([]counts, 2)},
		{Scenario: "job", Nodes: 2, Wrong: []string{"node 1"}, Requests: map[string]float64{"total": 5, "patch": 4, "watch": 1}},
	}}
	r.Rows[0].sum = counts{requests: [classes]int64{watch: 4}, failed: [failures]int64{unauthorized: 1}, received: 3000}
	r.Rows[0].finish(r.Rows[0].server, 0.5)
	var out bytes.Buffer
	if err := r.write(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  start\n", "  job (WRONG)\n", "0.250", "50%", "  1.5", "start: until ready. Requests: watch 2.00. Failed: 401 0.50.\n", "Requests: watch 1.00, patch 4.00.\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if got := r.failures(); !slices.Equal(got, []string{"job: node 1"}) {
		t.Errorf("failures: %q", got)
	}
}

// pause ends with the context.
func TestPause(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pause(ctx, time.Hour); err != context.Canceled {
		t.Error(err)
	}
	if err := pause(t.Context(), -time.Second); err != nil {
		t.Error(err)
	}
}
