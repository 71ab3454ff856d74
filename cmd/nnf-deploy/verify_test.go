package main

import (
	"strings"
	"testing"
)

// Something else manages the node and changes back what was brought: that is not
// passed over.
func TestChangedBack(t *testing.T) {
	s := newStage(t, 2)
	s.credentials("old")
	if cmd, out := s.command(); cmd.Run() != nil {
		t.Fatal(out)
	}
	s.nodes[1].Put("usr/bin/nnf-dm", strings.Replace(daemon, "sleep 0.3", `printf another >"$R/etc/clientmountd/service.token"`, 1), 0o755)
	s.credentials("new")
	cmd, out := s.command()
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"compute-01  ok      ",
		"it was installed, and then: not as it was left: replace /etc/clientmountd/service.token (does something else manage this node?)\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
