package api

import (
	"fmt"
	"strings"
	"testing"
)

func TestPermissions(t *testing.T) {
	used, other := Permissions([]Rule{
		{Group: GroupDWS, Resource: "clientmounts", Used: "get list", Other: "update"},
		{Group: GroupDWS, Resource: "clientmounts/status", Used: "patch"},
	})
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

// Rules that a daemon uses have a scope, and a reason if that is all namespaces.
func TestScopes(t *testing.T) {
	for name, rules := range map[string][]Rule{"clientmountd": RulesClientmountd, "nnf-dm": RulesDataMovement} {
		for _, r := range rules {
			if (r.Used == "") != (r.Scope == ScopeNone) || (r.Reason == "") != (r.Scope != ScopeAll) {
				t.Errorf("%s: %s is used for %q, with scope %d and reason %q", name, r.Resource, r.Used, r.Scope, r.Reason)
			}
			for verb := range strings.FieldsSeq(r.Used) {
				if r.Scope == ScopeAll && verb != "get" && verb != "list" {
					t.Errorf("%s may %s %s in all namespaces", name, verb, r.Resource)
				}
			}
		}
	}
}
