package clientmountd

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

// The history of a node in all three formats, only of one workflow, and an empty one.
func TestTimeline(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	var history bytes.Buffer
	for i, workflow := range []string{sample.Workflow, "other"} {
		life := sample.Node("compute-01", 42+i).Lives[0]
		life.Workflow = workflow
		if err := json.NewEncoder(&history).Encode(life); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "history.jsonl"), history.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(code int, args ...string) string {
		t.Helper()
		var out, messages bytes.Buffer
		process := cli.Process{Stdout: &out, Stderr: &messages}
		if have := Tools.Run(t.Context(), process, append([]string{"timeline", "--runtime-directory", dir}, args...)); have != code {
			t.Fatalf("%q: exit code %d, want %d: %s", args, have, code, messages.String())
		}
		return out.String() + messages.String()
	}
	if all := run(0); strings.Count(all, "ready after") != 2 || !strings.Contains(all, " waitVG ") {
		t.Error(all)
	}
	text := run(0, "--workflow", "other", "-o", "json")
	schema.Check(t, "clientmountd-timeline", []byte(text))
	doc, err := mountstate.ParseTimeline([]byte(text))
	if err != nil || len(doc.Lives) != 1 || doc.Lives[0].Workflow != "other" || len(doc.Lives[0].Steps) < 10 {
		t.Errorf("%+v %v", doc, err)
	}
	if doc, err = mountstate.ParseTimeline([]byte(run(0, "--workflow", "none", "-o", "json"))); err != nil || doc.Lives == nil || len(doc.Lives) != 0 {
		t.Errorf("%+v %v", doc, err)
	}
	if trace := run(0, "-o", "trace"); !json.Valid([]byte(trace)) || !strings.Contains(trace, `"ph":"X","name":"waitVG"`) {
		t.Error(trace)
	}
	if none := run(0, "--workflow", "none"); none != "clientmountd: no ClientMount of workflow none is recorded in "+dir+"\n" {
		t.Error(none)
	}
	record := filepath.Join(dir, "mounts", "damaged.json")
	if err := errors.Join(os.Mkdir(filepath.Dir(record), 0o700), os.WriteFile(record, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if damaged := run(0, "--workflow", "none"); !strings.HasPrefix(damaged, "clientmountd: warning: record cannot be used: "+record+" is damaged") || strings.Contains(damaged, "no ClientMount") {
		t.Error(damaged)
	}
	if wrong := run(2, "-o", "yaml"); !strings.Contains(wrong, "text, json, trace") {
		t.Error(wrong)
	}
}
