package deploy

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/timeline/page"
	timelines "github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

// The document of a fleet matches its schema, with and without timelines.
func TestTimelineSchema(t *testing.T) {
	results := []fleet.Result{{Node: "compute-00001", State: fleet.OK}, {Node: "compute-00002", State: fleet.OK}, {Node: "compute-00003", State: fleet.Failed, Cause: "not reachable", Hint: "check that the node is up"}}
	nodes := timelines.Fleet(2)
	nodes[1].Lives[0].Steps[5].Failed = true
	for _, documents := range []map[string]*mountstate.Timeline{{nodes[0].Node: nodes[0], nodes[1].Node: nodes[1]}, {}} {
		list := nodes[:len(documents)]
		var b bytes.Buffer
		if err := timelineJSON(&b, timelines.Workflow, results, documents, statistics(list)); err != nil {
			t.Fatal(err)
		}
		schema.Check(t, "nnf-deploy-timeline", b.Bytes())
		if n := bytes.Count(b.Bytes(), []byte(`"p95_seconds"`)); (n > 0) != (len(list) > 0) {
			t.Errorf("%d statistics of %d timelines", n, len(list))
		}
	}
}

// The table of the largest system fits on a screen, even if the slowest nodes are scattered over it.
func TestTimelineTable(t *testing.T) {
	var b bytes.Buffer
	if err := timelineTable(&b, statistics(timelines.Fleet(11136))); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 140 {
			t.Errorf("%d characters: %.100s", len(line), line)
		}
	}
	if !strings.Contains(b.String(), " more\n") {
		t.Error(b.String())
	}
}

// The page replaces only a regular file, as a whole. A device such as /dev/stdout stays, even for
// root.
func TestWritePage(t *testing.T) {
	dir := t.TempDir()
	pipe, link, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "file.html")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink(pipe, link), os.WriteFile(file, []byte("old"), 0o600)); err != nil {
		t.Fatal(err)
	}
	contents := &page.Contents{Workflow: timelines.Workflow, Time: time.Now(), Nodes: timelines.Fleet(1)}
	for path, mode := range map[string]os.FileMode{pipe: os.ModeNamedPipe, link: os.ModeSymlink, dir: os.ModeDir} {
		if err := writePage(path, contents); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
		if st, err := os.Lstat(path); err != nil || st.Mode().Type() != mode {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	for _, path := range []string{file, filepath.Join(dir, "new.html")} {
		if err := writePage(path, contents); err != nil {
			t.Error(err)
		}
		if data, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(data, []byte("<!doctype html>")) {
			t.Errorf("%s: %.40q, %v", path, data, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("%v, %v", entries, err)
	}
}
