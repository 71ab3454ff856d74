package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/transfer"
	"github.com/compute-daemons/compute-daemons/internal/transfer/commands"
)

const manual = "../../docs/nnf-dmctl.md"

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
	const begin, end = "<!-- reference: written by go test ./cmd/nnf-dmctl -update -->\n", "<!-- end of reference -->\n"
	text := readManual(t)
	head, rest, ok1 := strings.Cut(text, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the manual has no place for the reference")
	}
	want := head + begin + commands.Manual() + end + tail
	if want == text {
		return
	}
	if !*update {
		t.Fatal("the reference in docs/nnf-dmctl.md is not the program's: go test ./cmd/nnf-dmctl -update")
	}
	if err := os.WriteFile(manual, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every field, state and result of the JSON documents is named.
func TestManualJSON(t *testing.T) {
	text := readManual(t)
	source, err := os.ReadFile("../../internal/transfer/movement.go")
	if err != nil {
		t.Fatal(err)
	}
	fields := regexp.MustCompile("`json:\"([a-z_]+)").FindAllStringSubmatch(string(source), -1)
	if len(fields) < 20 {
		t.Fatalf("only %d fields were found in the code", len(fields))
	}
	for _, f := range fields {
		if !strings.Contains(text, `"`+f[1]+`"`) {
			t.Errorf("the field %s is not documented", f[1])
		}
	}
	for _, word := range []string{
		string(transfer.Pending), string(transfer.Starting), string(transfer.Running), string(transfer.Cancelling), string(transfer.Completed), string(transfer.Unknown),
		string(transfer.Success), string(transfer.Failure), string(transfer.Refused), string(transfer.Cancelled), string(transfer.Deleted),
	} {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("%s is not documented", word)
		}
	}
}
