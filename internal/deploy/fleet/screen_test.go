package fleet

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var sample = []Result{
	{Node: "compute-01", State: OK, Time: 3240 * time.Millisecond, Changes: []string{"a", "b", "c"}, Said: []string{"clientmountd.service: 0 mounts"}},
	{Node: "compute-02", State: Unchanged, Time: 400 * time.Millisecond},
	{Node: "compute-03-with-a-long-name", State: Failed, Time: 10 * time.Second, Cause: "not reachable: \x1b[31mConnection\nrefused", Hint: "is the node up?"},
	{Node: "compute-04", State: OK, Time: 999 * time.Millisecond, Changes: []string{"write /x"}},
	{Node: "compute-05", State: Skipped, Cause: "not begun: 1 failed before (--max-failures)"},
	{Node: "compute-06", State: Interrupted, Time: time.Second, Cause: "nothing was changed"},
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, sample); err != nil {
		t.Fatal(err)
	}
	const want = `NODE                         RESULT       TIME   WHAT
compute-01                   ok           3.2s   3 changes
compute-02                   unchanged    0.4s
compute-03-with-a-long-name  failed       10.0s  not reachable: \x1b[31mConnection\nrefused (is the node up?)
compute-04                   ok           1.0s   write /x
compute-05                   skipped      -      not begun: 1 failed before (--max-failures)
compute-06                   interrupted  1.0s   nothing was changed
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := JSON(&b, sample[:3]); err != nil {
		t.Fatal(err)
	}
	const want = `{
  "counts": {
    "failed": 1,
    "ok": 1,
    "unchanged": 1
  },
  "nodes": [
    {
      "node": "compute-01",
      "result": "ok",
      "seconds": 3.24,
      "changes": [
        "a",
        "b",
        "c"
      ],
      "daemons_say": [
        "clientmountd.service: 0 mounts"
      ]
    },
    {
      "node": "compute-02",
      "result": "unchanged",
      "seconds": 0.4,
      "changes": []
    },
    {
      "node": "compute-03-with-a-long-name",
      "result": "failed",
      "seconds": 10,
      "cause": "not reachable: \u001b[31mConnection\nrefused",
      "hint": "is the node up?",
      "changes": []
    }
  ]
}
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

func TestCounts(t *testing.T) {
	if got := Count(sample).String(); got != "6 nodes: 2 changed, 1 as wanted already, 1 failed, 1 interrupted, as before, 1 not begun" {
		t.Error(got)
	}
	if got := Count(sample[:1]).String(); got != "1 node: 1 changed" {
		t.Error(got)
	}
	var many, mixed []Result
	for i := range 30 {
		many = append(many, Result{Node: fmt.Sprint("n", i), State: Failed})
		mixed = append(mixed, Result{Node: strings.Repeat("a", i+1), State: Failed, Cause: fmt.Sprint("cause ", i)})
	}
	if got := Names(many, Failed); got != "n[0-29]" || Names(many, OK) != "" {
		t.Error(got)
	}
	if got := Names(mixed, Failed); !strings.HasSuffix(got, ",aaaaaaaaaaaaaaaaaaaa and 10 more") {
		t.Error(got)
	}
	if got := Causes(mixed, Failed); len(got) != most+1 || got[0] != "a: cause 0" || got[most] != "10 more nodes, for other causes" {
		t.Errorf("%q", got)
	}
}

// Nodes with the same cause are named together, whatever else their errors have.
func TestCauses(t *testing.T) {
	got := Causes([]Result{
		{Node: "compute-03", State: Failed, Cause: "not reachable: ssh: connect to host compute-03", Class: "not reachable"},
		{Node: "compute-04", State: OK},
		{Node: "compute-05", State: Failed, Cause: "it is full\x1b"},
		{Node: "compute-04", State: Failed, Cause: "not reachable: ssh: connect to host compute-04", Class: "not reachable"},
		{Node: "compute-06", State: Failed},
	}, Failed)
	if want := []string{"compute-[03-04]: not reachable", `compute-05: it is full\x1b`, "compute-06"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func noEnvironment(string) string { return "" }

// Where nobody looks: a line for each node that is through.
func TestPlainLines(t *testing.T) {
	var b bytes.Buffer
	s := NewScreen(&b, noEnvironment, "nnf-deploy", len(sample), false)
	for _, r := range sample {
		s.Begin(r.Node)
		s.Step(r.Node, "upload")
		s.End(r)
	}
	s.Close()
	const want = `nnf-deploy: [1/6] compute-01: ok, 3.2s: 3 changes
nnf-deploy: [2/6] compute-02: unchanged, 0.4s
nnf-deploy: [3/6] compute-03-with-a-long-name: failed, 10.0s: not reachable: \x1b[31mConnection\nrefused (is the node up?)
nnf-deploy: [4/6] compute-04: ok, 1.0s: write /x
nnf-deploy: [6/6] compute-06: interrupted, 1.0s: nothing was changed
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}

// On a terminal: one bar, and who fails above it; nothing in a cause steers it.
func TestBar(t *testing.T) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal("no pseudo-terminal on this machine: ", err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	defer master.Close()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if unsized, ok := NewScreen(slave, noEnvironment, "x", 1, false).(*plain); !ok {
		t.Errorf("%T on a terminal that has no size yet", unsized)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	go func() {
		var b bytes.Buffer
		_, _ = b.ReadFrom(master) // ends with the other side
		seen <- b.String()
	}()
	s := NewScreen(slave, noEnvironment, "nnf-deploy", 200, false)
	if _, ok := s.(*bar); !ok {
		t.Fatalf("%T on a terminal", s)
	}
	for i := range 200 {
		r := Result{Node: fmt.Sprintf("compute-%03d", i), State: OK}
		if i == 150 {
			r = sample[2]
		}
		s.Begin(r.Node)
		s.Step(r.Node, "upload")
		s.Step(r.Node, "switch")
		if i == 100 {
			time.Sleep(3 * refresh) // for the bar to be drawn in the middle
		}
		s.End(r)
	}
	s.Say("interrupted")
	s.Close()
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	text := <-seen
	for _, want := range []string{`100 of 200 nodes \[=+>? *\]`, `switch 1`, `nnf-deploy: compute-03-with-a-long-name: failed, 10.0s: not reachable: \\x1b\[31mConnection`, `nnf-deploy: interrupted`, `200 of 200 nodes`, `1 failed`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%q is not on the screen", want)
		}
	}
	if strings.Contains(text, "\x1b[31m") {
		t.Error("a cause has steered the terminal")
	}
	if t.Failed() {
		t.Logf("%q", text)
	}
	dumb := NewScreen(slave, func(string) string { return "dumb" }, "x", 1, false)
	if _, ok := dumb.(*plain); !ok {
		t.Errorf("%T on a dumb terminal", dumb)
	}
}
