package api

import (
	"fmt"
	"testing"
)

func TestPermissions(t *testing.T) {
	used, other := Permissions([]Rule{{GroupDWS, "clientmounts", "get list", "update"}, {GroupDWS, "clientmounts/status", "patch", ""}})
	if got, want := fmt.Sprint(used), "[get clientmounts.dataworkflowservices.github.io list clientmounts.dataworkflowservices.github.io patch clientmounts.dataworkflowservices.github.io/status]"; got != want {
		t.Errorf("used %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(other), "[update clientmounts.dataworkflowservices.github.io]"; got != want {
		t.Errorf("other %s, want %s", got, want)
	}
	for name, rules := range map[string][]Rule{"clientmountd": RulesClientmountd, "nnf-dm": RulesDataMovement} {
		if used, _ := Permissions(rules); len(used) < 3 {
			t.Errorf("%s uses only %d permissions", name, len(used))
		}
	}
}
