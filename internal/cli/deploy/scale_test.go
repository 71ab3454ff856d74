package deploy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// The benchmark sets these variables for the number of nodes, and for the file to which
// TestScale writes its figures.
const (
	scaleNodes   = "DEPLOY_SCALE_NODES"
	scaleFigures = "DEPLOY_SCALE_FIGURES"
)

// scaleFigure describes one run of nnf-deploy. The benchmark reads it.
type scaleFigure struct {
	Run      string  `json:"run"`
	Parallel int     `json:"parallel"`
	Nodes    int     `json:"nodes"`
	Seconds  float64 `json:"virtual_seconds"`
	CPU      float64 `json:"cpu_ms_per_node"`
	Memory   float64 `json:"resident_mb"` // includes the virtual nodes
	Screen   int     `json:"screen_bytes"`
	JSON     int     `json:"json_bytes"`
	Results  int     `json:"results_bytes"`
}

// scale is an administrator's host with a virtual fleet.
type scale struct {
	t     *testing.T
	fleet *virtualFleet
	names []string
	dead  []string
	dir   string
	api   *virtualAPI // nil: the command does not use one
}

func newScale(t *testing.T, nodes int) *scale {
	t.Helper()
	s := &scale{t: t, dir: t.TempDir()}
	s.fleet, s.names = newVirtualFleet(nodes)
	system := "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  externalComputeNodes:\n"
	for _, name := range s.names {
		system += "  - name: " + name + "\n"
		if s.fleet.nodes[name].dead {
			s.dead = append(s.dead, name)
		}
	}
	s.write("system.yaml", system)
	for _, d := range product.Names() {
		s.write("credentials/"+d+"/"+product.TokenFile, virtualToken("nnf-system", d, 0))
		s.write("credentials/"+d+"/"+product.CertFile, "certificate")
	}
	s.release(1)
	return s
}

func (s *scale) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		s.t.Fatal(err)
	}
}

// release writes the programs of a version. They are small: the time to send a program depends on
// its size, and not on nnf-deploy.
func (s *scale) release(version int) {
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	for at, value := range map[int]uint16{16: 2, 18: 62, 20: 1, 52: 64} { // an executable for x86_64, without sections
		binary.LittleEndian.PutUint16(header[at:], value)
	}
	for _, d := range product.Daemons {
		for _, name := range d.Programs() {
			s.write("bin/"+name, string(header)+name+strings.Repeat(strconv.Itoa(version%10), 16<<10))
		}
	}
}

// outcome is what a run has left.
type outcome struct {
	code           int
	stdout, stderr bytes.Buffer
	results        []byte
	took           time.Duration // virtual time
	document       resultsDocument
	afterSignal    time.Duration            // from the last signal to the end
	said           map[string]time.Duration // when lines were printed, after the first signal
}

// screenWriter is standard error. It records when lines about signals are printed.
type screenWriter struct {
	o     *outcome
	since time.Time // the first signal
}

func (w *screenWriter) Write(p []byte) (int, error) {
	if _, rest, found := bytes.Cut(p, []byte("nnf-deploy: interrupted: ")); found {
		what, _, _ := bytes.Cut(rest, []byte(","))
		w.o.said["interrupted: "+string(what)] = time.Since(w.since)
	}
	return w.o.stderr.Write(p)
}

// run runs nnf-deploy install in virtual time. The signals are sent at these times.
func (s *scale) run(parallel int, signals []time.Duration, args ...string) *outcome {
	s.t.Helper()
	args = append([]string{"--credentials", filepath.Join(s.dir, "credentials")}, args...)
	return s.install(parallel, signals, args...)
}

func (s *scale) install(parallel int, signals []time.Duration, args ...string) *outcome {
	s.t.Helper()
	o := &outcome{said: map[string]time.Duration{}}
	results := filepath.Join(s.dir, "results.jsonl")
	args = append([]string{"install", "--parallel", strconv.Itoa(parallel), "--system-config", filepath.Join(s.dir, "system.yaml"), "--binary-dir", filepath.Join(s.dir, "bin"),
		"--kubernetes-service-host", "api", "--kubernetes-service-port", "6443", "--results", results}, args...)
	synctest.Test(s.t, func(t *testing.T) {
		p := Program
		p.New = func(c *cli.Call) *call {
			v := Program.New(c)
			v.install.nodes.ssh.Start = s.fleet.start
			if s.api != nil {
				v.transport = s.api
			}
			return v
		}
		sent := make(chan os.Signal, len(signals))
		started, first, last := time.Now(), time.Duration(0), time.Duration(0)
		for i, at := range signals {
			time.AfterFunc(at, func() { sent <- syscall.SIGINT })
			if last = at; i == 0 {
				first = at
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o.code = p.Run(ctx, cli.Process{Stdout: &o.stdout, Stderr: &screenWriter{o, started.Add(first)}, Signals: sent}, args)
		o.took = time.Since(started)
		o.afterSignal = o.took - last
	})
	var err error
	if o.results, err = os.ReadFile(results); err != nil {
		s.t.Fatal(err)
	}
	if slices.Contains(args, "json") {
		if err := json.Unmarshal(o.stdout.Bytes(), &o.document); err != nil {
			s.t.Fatalf("%v\n%s", err, &o.stderr)
		}
	}
	if n := s.fleet.open.Load(); n != 0 {
		s.t.Errorf("%d sessions are left", n)
	}
	return o
}

// measured runs nnf-deploy and returns its figures.
func (s *scale) measured(run string, parallel int, args ...string) (*outcome, scaleFigure) {
	s.t.Helper()
	return s.measure(run, parallel, func() *outcome { return s.run(parallel, nil, args...) })
}

func (s *scale) measure(run string, parallel int, do func() *outcome) (*outcome, scaleFigure) {
	s.t.Helper()
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // resets VmHWM; without this, the maximum of all runs counts
	before := processorTime(s.t)
	o := do()
	return o, scaleFigure{
		Run: run, Parallel: parallel, Nodes: len(s.names), Seconds: o.took.Seconds(), CPU: (processorTime(s.t) - before).Seconds() * 1000 / float64(len(s.names)),
		Memory: resident(s.t), Screen: o.stderr.Len(), JSON: o.stdout.Len(), Results: len(o.results),
	}
}

// processorTime returns the processor time of this process.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident returns the maximum resident memory of this process in units of 10^6 bytes.
func resident(t *testing.T) float64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib * 1024 / 1e6
}

// longestLine returns the length of the longest line in bytes.
func longestLine(text []byte) (longest int) {
	for line := range bytes.Lines(text) {
		longest = max(longest, len(line))
	}
	return longest
}

// A large fleet, with dead and slow nodes: first installation, a run that changes nothing, and an
// upgrade. All nodes that answer are reached, no more sessions run than allowed, no node waits for
// a slow one, and the output stays short.
func TestScale(t *testing.T) {
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv(scaleNodes), "600"))
	if err != nil {
		t.Fatal(err)
	}
	s := newScale(t, nodes)
	if o := s.run(512, nil); o.code != cli.ExitFailed {
		t.Fatalf("%d\n%s", o.code, &o.stderr)
	}
	var figures []scaleFigure
	for i, parallel := range []int{32, 128, 512} {
		for _, run := range []struct{ name, state string }{{"nothing to change", "unchanged"}, {"upgrade", "ok"}} {
			if run.name == "upgrade" {
				s.release(2 + i)
			}
			s.fleet.most.Store(0)
			o, f := s.measured(run.name, parallel, "-o", "json")
			figures = append(figures, f)
			t.Logf("%+v", f)
			s.check(o, run.state)
			if most := s.fleet.most.Load(); most > int64(parallel) {
				t.Errorf("%d sessions at the same time, %d are allowed", most, parallel)
			}
			// A free place is taken immediately.
			sum, longest := 0.0, 0.0
			for _, n := range o.document.Nodes {
				sum, longest = sum+n.Seconds, max(longest, n.Seconds)
			}
			if most := sum/float64(parallel) + longest + 1; f.Seconds > most {
				t.Errorf("%s, %d in parallel: %.1f s, want at most %.1f s", run.name, parallel, f.Seconds, most)
			}
		}
	}
	o, f := s.measured("nothing to change, text", 512)
	f.Screen, f.JSON = f.Screen+f.JSON, 0
	figures = append(figures, f)
	t.Logf("%+v\n%s%s", f, &o.stderr, &o.stdout)
	if most := 100 * 500; f.Screen > most || longestLine(o.stdout.Bytes()) > 1000 {
		t.Errorf("%d bytes, lines of up to %d bytes\n%s", f.Screen, longestLine(o.stdout.Bytes()), &o.stdout)
	}
	if path := os.Getenv(scaleFigures); path != "" {
		data, err := json.Marshal(figures)
		if err = errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// check checks a run after which all nodes that are not dead have this state.
func (s *scale) check(o *outcome, state string) {
	s.t.Helper()
	want := map[string]int{state: len(s.names) - len(s.dead), "failed": len(s.dead)}
	have := map[string]int{}
	for i, n := range o.document.Nodes {
		have[string(n.Result)]++
		if n.Node != s.names[i] {
			s.t.Fatalf("result %d is that of %s", i, n.Node)
		}
	}
	if o.code != cli.ExitFailed || fmt.Sprint(have) != fmt.Sprint(want) {
		s.t.Errorf("exit code %d, %v, want %v\n%.2000s", o.code, have, want, &o.stderr)
	}
	if longest := longestLine(o.stdout.Bytes()); longest > 1000 {
		s.t.Errorf("the JSON document has a line of %d bytes", longest)
	}
	screen := o.stderr.String()
	if longest := longestLine(o.stderr.Bytes()); longest > 1000 || o.stderr.Len() > 60_000 {
		s.t.Errorf("%d bytes on the screen, with lines of up to %d bytes", len(screen), longest)
	}
	if n := strings.Count(screen, "nnf-deploy: error: failed: compute-[00078,"); n != 1 {
		s.t.Errorf("the dead nodes are not one host list:\n%.3000s", screen)
	}
	if lines := bytes.Count(o.results, []byte("\n")); lines != len(s.names)+1 {
		s.t.Errorf("%d lines of results", lines)
	}
}

// Ctrl-C is answered within a virtual second, however many nodes there are: the first one unless
// nodes are switching, the second one always. Each node has a result, and --failed continues with
// exactly the nodes that are not finished.
func TestInterruptedScale(t *testing.T) {
	const nodes, parallel, limit = 1000, 128, time.Second
	s := newScale(t, nodes)
	before := s.run(parallel, nil)
	counts := func(o *outcome) map[fleet.State]int {
		if len(o.document.Nodes) != nodes || bytes.Count(o.results, []byte("\n")) != nodes+1 {
			t.Errorf("%d nodes, %d lines of results", len(o.document.Nodes), bytes.Count(o.results, []byte("\n")))
		}
		if longest := max(longestLine(o.stdout.Bytes()), longestLine(o.stderr.Bytes())); longest > 1000 {
			t.Errorf("a line of %d bytes", longest)
		}
		if at, ok := o.said["interrupted: starting no further node"]; !ok || at > limit {
			t.Errorf("the message came %v after the signal, or not at all (%v)\n%.2000s", at, ok, &o.stderr)
		}
		return o.document.Counts
	}
	if before.code != cli.ExitFailed {
		t.Fatalf("%d\n%.2000s", before.code, &before.stderr)
	}
	o := s.run(parallel, []time.Duration{3 * time.Second}, "-o", "json")
	if c := counts(o); o.code != 130 || o.afterSignal > limit || c[fleet.Unchanged] == 0 || c[fleet.Interrupted] == 0 || c[fleet.Skipped] == 0 || c[fleet.OK] > 0 {
		t.Errorf("inspecting: exit code %d after %v: %v", o.code, o.afterSignal, c)
	}
	s.release(2)
	o = s.run(parallel, []time.Duration{10 * time.Second, 10*time.Second + 100*time.Millisecond}, "-o", "json")
	if c := counts(o); o.code != 130 || o.afterSignal > limit || c[fleet.OK] == 0 || c[fleet.Failed] == 0 || c[fleet.Interrupted] == 0 || c[fleet.Skipped] == 0 {
		t.Errorf("switching, two signals: exit code %d after %v: %v", o.code, o.afterSignal, c)
	}
	s.release(3)
	o = s.run(parallel, []time.Duration{10 * time.Second}, "-o", "json")
	c := counts(o)
	if longest := 20 * (virtualSwitch + virtualProbe + virtualLogin + virtualScript + time.Second); o.code != 130 || o.afterSignal > longest || c[fleet.OK] == 0 || c[fleet.Interrupted] == 0 || c[fleet.Skipped] == 0 {
		t.Errorf("switching, one signal: exit code %d after %v: %v", o.code, o.afterSignal, c)
	}
	left := c[fleet.Failed] + c[fleet.Interrupted] + c[fleet.Skipped]
	o = s.run(parallel, nil, "--failed", "-o", "json")
	if c := o.document.Counts; len(o.document.Nodes) != left || c[fleet.Failed] != len(s.dead) || c[fleet.OK] != left-len(s.dead) {
		t.Errorf("--failed: %v, want %d nodes, of which %d are dead", c, left, len(s.dead))
	}
}

// A large fleet gets tokens of accounts of single nodes: two requests for each node that answers,
// made when its turn comes. A second run requests none. The processor time includes the requests to
// the API server without TLS.
func TestIdentitiesAtScale(t *testing.T) {
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv(scaleNodes), "600"))
	if err != nil {
		t.Fatal(err)
	}
	const parallel = 128
	s := newScale(t, nodes)
	if o := s.run(parallel, nil); o.code != cli.ExitFailed {
		t.Fatalf("%d\n%s", o.code, &o.stderr)
	}
	s.api = newVirtualAPI(t)
	s.write("kubeconfig", "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'https://api:6443'}}], users: [{name: u, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: u}}]}")
	alive := int64(len(s.names) - len(s.dead))
	for _, run := range []struct {
		name, state      string
		tokens, accounts int64
	}{{"first tokens of nodes", "ok", 2 * alive, 0}, {"tokens of nodes, nothing to change", "unchanged", 0, 2 * alive}} {
		s.api.reset()
		o, f := s.measure(run.name, parallel, func() *outcome {
			return s.install(parallel, nil, "--identity", "per-node", "--kubeconfig", filepath.Join(s.dir, "kubeconfig"), "-o", "json")
		})
		s.check(o, run.state)
		t.Logf("%+v, %d requests, at most %d at the same time", f, s.api.requests.Load(), s.api.most.Load())
		if got, accounts := s.api.tokens.Load(), s.api.accounts.Load(); got != run.tokens || accounts != run.accounts {
			t.Errorf("%s: %d tokens and %d accounts, want %d and %d", run.name, got, accounts, run.tokens, run.accounts)
		}
		if most := s.api.most.Load(); most > 8*maxTokenRequests {
			t.Errorf("%s: %d requests at the same time", run.name, most)
		}
		if f.CPU > 20 && len(s.names) > 5000 {
			t.Errorf("%s: %.1f ms of processor time per node", run.name, f.CPU)
		}
		for _, token := range []string{"e30.", "signature"} {
			if strings.Contains(o.stdout.String()+o.stderr.String()+string(o.results), token) {
				t.Errorf("%s: the output has %q", run.name, token)
			}
		}
	}
}
