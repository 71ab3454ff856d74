package server

import (
	"slices"
	"testing"
)

// The line changes when what it says does, and is told then only.
func TestSight(t *testing.T) {
	var got []string
	s := statusLine{tell: func(text string) { got = append(got, text) }}
	want := func(lines ...string) {
		t.Helper()
		if !slices.Equal(got, lines) {
			t.Errorf("%q, want %q", got, lines)
		}
		got = nil
	}
	s.watch("rabbit-01", false)
	s.watch("rabbit-01", false)
	want("following data movements of rabbit-01")
	s.watch("nnf-dm-system", false)
	want("following data movements of nnf-dm-system, rabbit-01")
	s.watch("rabbit-01", true)
	s.watch("rabbit-01", true)
	want("the API server does not show the data movements of rabbit-01, trying again")
	s.watch("nnf-dm-system", true)
	want("the API server does not show the data movements of nnf-dm-system, rabbit-01, trying again")
	s.end("rabbit-01")
	want("the API server does not show the data movements of nnf-dm-system, trying again")
	s.watch("nnf-dm-system", false)
	want("following data movements of nnf-dm-system")
	s.end("nnf-dm-system")
	want("waiting for requests")
	new(statusLine).watch("nobody wants to know", true)
}
