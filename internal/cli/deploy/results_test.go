package deploy

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

var sample = []fleet.Result{
	{Node: "compute-01", State: fleet.OK, Time: 3240 * time.Millisecond, Changes: []string{"a", "b", "c"}, Status: []string{"clientmountd.service: 0 mounts"}},
	{Node: "compute-02", State: fleet.Unchanged, Time: 400 * time.Millisecond},
	{Node: "compute-03-with-a-long-name", State: fleet.Failed, Time: 10 * time.Second, Cause: "not reachable: \x1b[31mConnection\nrefused", Hint: "check that the node is up"},
	{Node: "compute-04", State: fleet.OK, Time: 999 * time.Millisecond, Changes: []string{"write /x"}},
	{Node: "compute-05", State: fleet.Skipped, Cause: "not started: 1 failed before (--max-failures)"},
	{Node: "compute-06", State: fleet.Interrupted, Time: time.Second, Cause: "nothing was changed"},
}

// failed returns the result for an error of a node.
func TestFailed(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want fleet.Result
	}{
		{errors.New("x"), fleet.Result{State: fleet.Failed, Cause: "x"}},
		{&target.Problem{Text: "t", Hint: "h"}, fleet.Result{State: fleet.Failed, Cause: "t", Hint: "h"}},
		{&remote.Error{Kind: remote.Unreachable, Text: "t", Hint: "h"}, fleet.Result{State: fleet.Failed, Cause: "not reachable: t", Hint: "h"}},
		{&remote.Error{Kind: remote.Interrupted, Text: "t"}, fleet.Result{State: fleet.Interrupted, Cause: "nothing was changed"}},
	} {
		if got := failed(tt.err); got.State != tt.want.State || got.Cause != tt.want.Cause || got.Hint != tt.want.Hint {
			t.Errorf("%v: %+v", tt.err, got)
		}
	}
}

// A node that takes too long has failed; a node that was interrupted by Ctrl-C has not.
func TestTimeout(t *testing.T) {
	slow := func(_, stop context.Context, _ string, _ func(string)) fleet.Result {
		<-stop.Done()
		return failed(&remote.Error{Kind: remote.Interrupted})
	}
	r := withTimeout(time.Millisecond, slow)(t.Context(), t.Context(), "n", func(string) {})
	if r.State != fleet.Failed || r.Cause != "it did not finish within 1ms (--node-timeout)" || r.Hint == "" {
		t.Errorf("%+v", r)
	}
	stop, halt := context.WithCancel(t.Context())
	halt()
	if r := withTimeout(time.Hour, slow)(t.Context(), stop, "n", func(string) {}); r.State != fleet.Interrupted {
		t.Errorf("%+v", r)
	}
}

func TestResultsTable(t *testing.T) {
	var b bytes.Buffer
	if err := resultsTable(&b, sample); err != nil {
		t.Fatal(err)
	}
	const want = `NODE                         RESULT       TIME   DETAILS
compute-01                   ok           3.2s   3 changes
compute-02                   unchanged    0.4s
compute-03-with-a-long-name  failed       10.0s  not reachable: \x1b[31mConnection\nrefused (check that the node is up)
compute-04                   ok           1.0s   write /x
compute-05                   skipped      -      not started: 1 failed before (--max-failures)
compute-06                   interrupted  1.0s   nothing was changed
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestResultsJSON(t *testing.T) {
	var b bytes.Buffer
	if err := resultsJSON(&b, sample[:3]); err != nil {
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
      "hint": "check that the node is up",
      "changes": []
    }
  ]
}
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

// Nodes with the same changes are on one line, and so are nodes with the same note.
func TestDifferencesAndNotes(t *testing.T) {
	results := []fleet.Result{
		{Node: "a", State: fleet.Differs, Changes: []string{"write /x", "restart y"}, Notes: []string{"n"}},
		{Node: "b", State: fleet.Unchanged, Notes: []string{"n", "m\x1b[31m"}},
		{Node: "c", State: fleet.Differs, Changes: []string{"write /x", "restart y"}},
		{Node: "d", State: fleet.Failed, Cause: "not\x1breachable", Hint: "h"},
	}
	var out, stderr bytes.Buffer
	if err := differences(&out, results); err != nil {
		t.Fatal(err)
	}
	const want = "a,c:\n  write /x\n  restart y\nb: no changes\nd: failed: not\\x1breachable (h)\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	v := &call{Call: &cli.Call{Program: Program.Name, Process: cli.Process{Stderr: &stderr}}}
	v.notes(results)
	if stderr.String() != "nnf-deploy: note: a,b: n\nnnf-deploy: note: b: m\\x1b[31m\n" {
		t.Errorf("%q", stderr.String())
	}
}

func TestJournals(t *testing.T) {
	var results []fleet.Result
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		results = append(results, fleet.Result{Node: n, State: fleet.Failed, Journal: []string{"x\x1b", "y"}})
	}
	results[1].Journal = nil
	var stderr bytes.Buffer
	v := &call{Call: &cli.Call{Program: Program.Name, Process: cli.Process{Stderr: &stderr}}}
	v.journals(results)
	const want = "nnf-deploy: a: journal: x\\x1b\nnnf-deploy: a: journal: y\nnnf-deploy: c: journal: x\\x1b\nnnf-deploy: c: journal: y\n" +
		"nnf-deploy: d: journal: x\\x1b\nnnf-deploy: d: journal: y\nnnf-deploy: -o json also shows the journals of 2 more nodes\n"
	if stderr.String() != want {
		t.Errorf("%q", stderr.String())
	}
}

// A task that notices one of the two time limits before the other has failed, and was not
// interrupted.
func TestTimeoutIsNotInterruption(t *testing.T) {
	task := withTimeout(50*time.Microsecond, func(ctx, stop context.Context, node string, step func(string)) fleet.Result {
		<-ctx.Done()
		return fleet.Result{State: fleet.Interrupted}
	})
	for range 1500 {
		if r := task(t.Context(), t.Context(), "compute-01", nil); r.State != fleet.Failed || r.Hint == "" {
			t.Fatalf("%+v", r)
		}
	}
}
