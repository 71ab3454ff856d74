package deploy

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Without a terminal, there is a line for each finished node.
func TestPlainLines(t *testing.T) {
	var b bytes.Buffer
	s := newProgress(&b, "xterm", len(sample), false)
	for _, r := range sample {
		s.Start(r.Node)
		s.Step(r.Node, "upload")
		s.Finish(r)
	}
	s.Close()
	const want = `nnf-deploy: [1/6] compute-01: ok, 3.2s: 3 changes
nnf-deploy: [2/6] compute-02: unchanged, 0.4s
nnf-deploy: [3/6] compute-03-with-a-long-name: failed, 10.0s: not reachable: \x1b[31mConnection\nrefused (check that the node is up)
nnf-deploy: [4/6] compute-04: ok, 1.0s: write /x
nnf-deploy: [6/6] compute-06: interrupted, 1.0s: nothing was changed
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}

// Without a terminal, many nodes have a line for each percent, and a limited number of lines for
// failures.
func TestPlainLinesOfManyNodes(t *testing.T) {
	const nodes = 1000
	var b bytes.Buffer
	s := newProgress(&b, "xterm", nodes, false)
	for i := range nodes {
		s.Finish(fleet.Result{Node: fmt.Sprintf("n%03d", i), State: map[bool]fleet.State{true: fleet.Failed, false: fleet.OK}[i%2 == 1]})
	}
	s.Close()
	text := b.String()
	if lines := strings.Count(text, "\n"); lines != 100+maxFailureLines+1 || strings.Count(text, "further failures are counted") != 1 || strings.Contains(text, "n002") {
		t.Errorf("%d lines\n%s", lines, text)
	}
	for _, want := range []string{"nnf-deploy: n001: failed, 0.0s\n", "nnf-deploy: [10/1000] 1 %, 5 failed, 0s\n", "nnf-deploy: [1000/1000] 100 %, 500 failed, "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// On a terminal, there is one bar, with failures above it. Control characters in a cause are
// escaped.
func TestBar(t *testing.T) {
	terminal := script.OpenTerminal(t, 100, 24)
	if _, ok := newProgress(script.OpenTerminal(t, 0, 0).Screen, "xterm", 1, false).(*lines); !ok {
		t.Error("a bar on a terminal without a size")
	}
	if _, ok := newProgress(terminal.Screen, "dumb", 1, false).(*lines); !ok {
		t.Error("a bar on a dumb terminal")
	}
	s := newProgress(terminal.Screen, "xterm", 200, false)
	if _, ok := s.(*bar); !ok {
		t.Fatalf("%T on a terminal", s)
	}
	shows := func(pattern string) {
		t.Helper()
		wait.Until(t, pattern, func() bool { return regexp.MustCompile(pattern).MatchString(terminal.Shown()) })
	}
	for i := range 200 {
		r := fleet.Result{Node: fmt.Sprintf("compute-%03d", i), State: fleet.OK}
		if i == 150 {
			r = sample[2]
		}
		s.Start(r.Node)
		s.Step(r.Node, "upload")
		s.Step(r.Node, "switch")
		if i == 100 {
			shows(`100 of 200 nodes \[=+>? *\] \d+s, switch 1`)
		}
		s.Finish(r)
	}
	s.Say("interrupted")
	s.Close()
	shows(`nnf-deploy: compute-03-with-a-long-name: failed, 10.0s: not reachable: \\x1b\[31mConnection`)
	shows(`nnf-deploy: interrupted`)
	shows(`200 of 200 nodes \[=+>?\] \d+s, 1 failed`)
	if strings.Contains(terminal.Shown(), "\x1b[31m") {
		t.Error("a control sequence in a cause was not escaped")
	}
}
