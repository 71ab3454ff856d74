package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/commands"
)

const manual = "../../docs/nnf-deploy.md"

func readManual(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Synopses, flags, environment and exit codes in the manual are the program's;
// -update writes them.
func TestManualReference(t *testing.T) {
	const begin, end = "<!-- reference: written by go test ./cmd/nnf-deploy -update -->\n", "<!-- end of reference -->\n"
	text := readManual(t)
	head, rest, ok1 := strings.Cut(text, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the manual has no place for the reference")
	}
	want := head + begin + commands.Reference().Manual() + end + tail
	if want == text {
		return
	}
	if !*update {
		t.Fatal("the reference in docs/nnf-deploy.md is not the program's: go test ./cmd/nnf-deploy -update")
	}
	if err := os.WriteFile(manual, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every field of the JSON documents is named.
func TestManualJSON(t *testing.T) {
	text := readManual(t)
	sources, err := filepath.Glob("../../internal/deploy/commands/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range sources {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range regexp.MustCompile("`json:\"([a-z_]+)").FindAllStringSubmatch(string(source), -1) {
			found++
			if !strings.Contains(text, "`"+f[1]+"`") {
				t.Errorf("the field %s is not documented", f[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d fields were found in the code", found)
	}
}
