package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/transfer"
	"github.com/compute-daemons/compute-daemons/internal/transfer/commands"
)

// Synopses, flags, environment and exit codes in the manual are the program's;
// -update writes them.
func TestManualReference(t *testing.T) {
	manual.Guide(t, commands.Name, commands.Program.Guide())
	manual.Reference(t, commands.Name, commands.Manual(), *update)
}

// Every field, state and result of the JSON documents is named.
func TestManualJSON(t *testing.T) {
	text := manual.Read(t, commands.Name).Text
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
