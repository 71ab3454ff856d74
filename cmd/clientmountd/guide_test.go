package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// The commands of docs/stuck-mount.md that show the state of a node, on one with a mount of a job and
// an orphan of another one, without a daemon. The job ends before the last command.
func TestStateGuide(t *testing.T) {
	if os.Geteuid() != 0 {
		require.Missing(t, "the sub-commands need root")
	}
	runtime := filepath.Join(t.TempDir(), "clientmountd")
	records, err := clientmount.OpenRecords(runtime)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	orphaned := now.Add(-time.Hour)
	for uid, r := range map[string]*clientmount.Record{
		"1": {Name: "fluxjob-123-0", Workflow: "fluxjob-123"},
		"2": {Name: "fluxjob-122-0", Workflow: "fluxjob-122", Orphan: &orphaned},
	} {
		r.Version, r.UID, r.Created = 1, uid, now
		r.Steps = []mountstate.Step{{
			Path: "/mnt/nnf/" + r.Name, Phase: mountstate.PhaseMount, Kind: mountstate.StepWait, Name: "waitVG",
			Started: now.Add(-1500 * time.Millisecond), Finished: now, Seconds: 1.5, Tries: 1,
		}}
		r.Mounts = []clientmount.MountRecord{{Plan: plan.Plan{Path: "/mnt/nnf/" + r.Name, Type: "xfs"}, Ready: true, Since: now}}
		if err := records.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	const mounted, orphan = `fluxjob-123-0 +fluxjob-123 +/mnt/nnf/fluxjob-123-0 +xfs +mounted +\d+s +-\n`, `mount of /mnt/nnf/fluxjob-122-0 orphaned for 1h: ClientMount fluxjob-122-0 no longer exists`
	expected := []struct {
		line   string
		code   int
		output string
	}{
		{"clientmountd mounts", 0, `CLIENTMOUNT .*\nfluxjob-122-0 .* orphan +1h .*\n` + mounted},
		{"clientmountd mounts --workflow fluxjob-123 --sort state", 0, `CLIENTMOUNT .*\n` + mounted},
		{"clientmountd mounts -o json", 0, `(?s)\{.*"state": "orphan".*\}\n`},
		{"clientmountd timeline --workflow fluxjob-123", 0, `fluxjob-123-0, workflow fluxjob-123: started (?s:.*)\n +waitVG +wait +1\.50s .*\n(?s:.*)`},
		{"clientmountd timeline --workflow fluxjob-123 -o trace", 0, `(?s)\{.*"name":"waitVG".*\}\n`},
		{"clientmountd health", 1, orphan + "; and 1 more\n"},
		{"clientmountd health --drain-only", 1, orphan + "\n"},
		{"clientmountd health --grace-busy 30m --grace-api 1h -o json", 1, `(?s)\{.*"action": "drain".*\}\n`},
		{"clientmountd wait --workflow fluxjob-123 --for mounted --timeout 5m", 0, ""},
		{"clientmountd wait --workflow fluxjob-123 --for unmounted --timeout 10m", 0, ""},
	}
	lines := strings.Split(strings.TrimSpace(strings.Join(manual.Commands(t, "../..", "docs/stuck-mount.md", "cmd/clientmountd TestStateGuide"), "")), "\n")
	if len(lines) != len(expected) {
		t.Fatalf("the guide has %q", lines)
	}
	for i, want := range expected {
		if i == len(expected)-1 {
			if err := records.Remove("1"); err != nil {
				t.Fatal(err)
			}
		}
		var out, errs bytes.Buffer
		line, _, _ := strings.Cut(lines[i], " > ")
		code := program.Run(t.Context(), strings.Fields(line)[1:], []string{"RUNTIME_DIRECTORY=" + runtime}, &out, &errs)
		if line != want.line || code != want.code || !regexp.MustCompile(`\A`+want.output+`\z`).MatchString(out.String()) {
			t.Errorf("%s; want %s: exit code %d\n%s%s", line, want.line, code, &out, &errs)
		}
	}
}
