package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var good = []State{OK, Unchanged, Differs}

func results(t *testing.T, path string, nodes []string, list ...Result) {
	t.Helper()
	r, err := CreateResults(path, "install", nodes, good...)
	if err != nil {
		t.Fatal(err)
	}
	for _, res := range list {
		r.Add(res)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	results(t, path, []string{"a", "b", "c", "d", "e", "f"},
		Result{Node: "b", State: Failed, Cause: "not\nreachable\x1b[31m" + strings.Repeat("x", 10_000), Time: 1500 * time.Millisecond}, Result{Node: "a", State: OK},
		Result{Node: "d", State: Unchanged}, Result{Node: "e", State: Skipped}, Result{Node: "f", State: Interrupted})
	if got, err := FailedIn(path, "install"); err != nil || !slices.Equal(got, []string{"b", "c", "e", "f"}) {
		t.Errorf("%q %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != 6 || len(lines[1]) > 6_000 || !strings.HasPrefix(lines[1], `{"node":"b","result":"failed","failed":true,"seconds":1.5,"cause":"not`) || strings.Contains(lines[1], "\x1b") {
		t.Errorf("%d lines, %.200s", len(lines), lines[1])
	}
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Errorf("%.100q", l)
		}
	}
	// A second run replaces the file and leaves no temporary file.
	results(t, path, []string{"b"}, Result{Node: "b", State: OK})
	if got, err := FailedIn(path, "install"); err != nil || len(got) > 0 {
		t.Errorf("%q %v", got, err)
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
}

// Each result is in the file as soon as the node is finished. After a killed run, the file is
// valid, and the nodes that the run did not reach are repeated.
func TestResultsAreWrittenImmediately(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	r, err := CreateResults(path, "install", []string{"a", "b", "c"}, good...)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var seen [][]string
	read := func() {
		got, err := FailedIn(path, "install")
		if err != nil {
			t.Error(err)
		}
		seen = append(seen, got)
	}
	read()
	task := func(_, _ context.Context, node string, _ func(string)) Result {
		read()
		return Result{State: map[string]State{"a": OK, "b": Failed, "c": OK}[node]}
	}
	Run(t.Context(), t.Context(), []string{"a", "b", "c"}, Options{Parallel: 1}, task, r.Observe(new(recorder)))
	read()
	want := [][]string{{"a", "b", "c"}, {"a", "b", "c"}, {"b", "c"}, {"b", "c"}, {"b"}}
	if !slices.EqualFunc(seen, want, slices.Equal) {
		t.Errorf("%q", seen)
	}
	// A run that is killed while it writes a line.
	data, _ := os.ReadFile(path)
	for cut := len(data) - 1; cut > strings.Index(string(data), "\n"); cut-- {
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := FailedIn(path, "install"); err != nil || !slices.Contains(got, "b") || !slices.Contains(got, "c") {
			t.Fatalf("%q: %q %v", data[:cut], got, err)
		}
	}
}

func TestInvalidResults(t *testing.T) {
	head := `{"kind":"nnf-deploy results","version":1,"command":"install","nodes":["a"]}` + "\n"
	for _, tt := range []struct{ name, text, why string }{
		{"empty", "", "not a results file"},
		{"SystemConfiguration", "apiVersion: x\nkind: SystemConfiguration\n", "not a results file"},
		{"JSON output", "{\n  \"counts\": {}\n}\n", "not a results file"},
		{"different kind", `{"kind":"x","version":1,"command":"install"}` + "\n", "not a results file"},
		{"newer version", strings.Replace(head, `"version":1`, `"version":2`, 1), "has version 2, but this nnf-deploy reads version 1"},
		{"different command", strings.Replace(head, "install", "status", 1), `has the results of "status", not of "install"`},
		{"incomplete head", strings.TrimSuffix(head, "\n"), "not a results file"},
		{"line without JSON", head + "hello\n", ":2: the line is not the result of a node"},
		{"line without node", head + "{}\n", ":2: the line is not the result of a node"},
	} {
		path := filepath.Join(t.TempDir(), "results")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := FailedIn(path, "install"); err == nil || got != nil || !strings.Contains(err.Error(), tt.why) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q %v", tt.name, got, err)
		}
	}
	dir := t.TempDir()
	path, link, open := filepath.Join(dir, "results"), filepath.Join(dir, "link"), filepath.Join(dir, "open")
	results(t, path, []string{"a"})
	if err := errors.Join(os.Symlink(path, link), os.WriteFile(open, []byte(head), 0o600), os.Chmod(open, 0o622)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{link, open, dir, "/dev/null", filepath.Join(dir, "none")} {
		if got, err := FailedIn(p, "install"); err == nil {
			t.Errorf("%s: %q", p, got)
		}
	}
}

// CreateResults never replaces files that are not results files.
func TestResultsDoNotReplaceOtherFiles(t *testing.T) {
	dir := t.TempDir()
	file, link, empty := filepath.Join(dir, "system.yaml"), filepath.Join(dir, "link"), filepath.Join(dir, "empty")
	err := errors.Join(os.WriteFile(file, []byte("kind: SystemConfiguration\n"), 0o600), os.WriteFile(empty, nil, 0o644), os.Symlink(file, link))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir, "/dev/null", filepath.Join(dir, "none", "results")} {
		if r, err := CreateResults(path, "install", []string{"a"}, good...); err == nil {
			r.Close()
			t.Errorf("%s was replaced", path)
		}
	}
	results(t, empty, []string{"a"})
	if info, err := os.Stat(empty); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 3 {
		t.Errorf("%v %v", list, err)
	}
}

// A write error does not stop the run, and Close returns it.
func TestResultsWriteError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	r := &ResultsFile{path: "x", f: full, good: good}
	for range 3 {
		r.Add(Result{Node: "a", State: OK})
	}
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Error(err)
	}
}
