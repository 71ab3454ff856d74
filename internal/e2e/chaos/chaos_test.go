package chaos

import (
	"fmt"
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

// The log keeps the first failed checks and the last lines.
func TestLog(t *testing.T) {
	l := NewLog()
	for i := range 3 * shown {
		l.Note(fmt.Sprintf("line %d", i))
		l.Check()
	}
	if l.Failed() || l.Checks() != 3*shown || l.Last() != fmt.Sprintf("line %d", 3*shown-1) || strings.Contains(l.String(), "line 0\n") {
		t.Errorf("%v %d %q", l.Failed(), l.Checks(), l.Last())
	}
	for i := range 2 * mostProblems {
		l.Wrong("problem %d", i)
	}
	if p := l.Problems(); len(p) != mostProblems || p[0] != "problem 0" || !strings.Contains(l.String(), "WRONG: problem 19") {
		t.Errorf("%q", p)
	}
}
