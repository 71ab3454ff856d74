package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// Synopses, flags, environment and exit codes in the manual are the program's;
// -update writes them.
func TestManualReference(t *testing.T) {
	manual.Guide(t, deploy.Name, deploy.Program.Guide())
	manual.Reference(t, deploy.Name, deploy.Program.Guide().Manual(), *update)
}

// Every field of the JSON documents is named.
func TestManualJSON(t *testing.T) {
	text := manual.Read(t, deploy.Name).Text
	sources, err := filepath.Glob("../../internal/cli/deploy/*.go")
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
