package chaos

import (
	"strings"
	"testing"
)

var simple = World{Name: "simple", Length: 60, Verbs: map[string]Verb{
	"wait": {Weight: 20, Args: [][]string{{"1", "2"}}},
	"kill": {Weight: 1, Fault: true},
	"lose": {Weight: 1, Fault: true, Args: [][]string{{"a", "b"}}},
}}

func TestTexts(t *testing.T) { simple.Texts(t) }

// A line that is not a step is named.
func TestParse(t *testing.T) {
	for _, bad := range []string{"fly", "lose", "wait", "kill now"} {
		if _, err := simple.Parse("# a comment\n\n" + bad); err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Only the steps that are needed for the failure are left.
func TestShrink(t *testing.T) {
	s := simple.Generate(0)
	s[7], s[31], s[50] = Step{"kill", nil}, Step{"lose", []string{"a"}}, Step{"kill", nil}
	runs := 0
	short := shrink(s, func(s Script) bool {
		runs++
		kills, lost := 0, false
		for _, step := range s {
			lost = lost || step.String() == "lose a"
			if step.Verb == "kill" && lost {
				kills++
			}
		}
		return kills > 0
	})
	if short.String() != "lose a\nkill\n" {
		t.Errorf("%d runs:\n%s", runs, short)
	}
}
