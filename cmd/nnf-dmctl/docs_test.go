package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// Synopses, flags, environment and exit codes in the manual are the program's;
// -update writes them.
func TestManualReference(t *testing.T) {
	manual.Guide(t, dmctl.Name, dmctl.Program.Guide())
	manual.Reference(t, dmctl.Name, dmctl.Manual(), *update)
}

// Every field, state and result of the JSON documents is named.
func TestManualJSON(t *testing.T) {
	text := manual.Read(t, dmctl.Name).Text
	source, err := os.ReadFile("../../internal/datamovement/client/client.go")
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
		string(client.Pending), string(client.Starting), string(client.Running), string(client.Cancelling), string(client.Completed), string(client.Unknown),
		string(client.Success), string(client.Failure), string(client.Refused), string(client.Cancelled), string(client.Deleted),
	} {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("%s is not documented", word)
		}
	}
}
