package main

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// The settings in the manual are those of the table; -update writes them.
func TestManualSettings(t *testing.T) {
	manual.Read(t, program.Name).Settings(t, new(clientmount.Configuration).Table(), *update)
}

func TestManualEvents(t *testing.T) { manual.Read(t, program.Name).Events(t, clientmount.Events()) }

// Every step that can fail has its text in the reference of status.error.
func TestManualErrors(t *testing.T) {
	reference := manual.Read(t, program.Name).Section(t, "## What status.error says")
	seen := 0
	for _, s := range manual.Literals(t, "internal/clientmount/plan", "internal/clientmount") {
		text, isStep := strings.CutPrefix(s, "unable to ")
		if !isStep {
			continue
		}
		seen++
		text, _, _ = strings.Cut(text, "%s")
		if !strings.Contains(reference, "unable to "+strings.TrimSpace(text)) {
			t.Errorf("%q is not explained", s)
		}
	}
	if seen < 14 {
		t.Errorf("only %d texts were found in the code", seen)
	}
}

func TestManualFields(t *testing.T) {
	manual.Read(t, program.Name).Fields(t, "internal/clientmount", "internal/kube", "internal/node", "internal/daemon")
}
