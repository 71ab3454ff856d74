package version

import (
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	defer func(v string) { Version = v }(Version)
	Version = "v1.2.3"
	words := strings.Fields(Line("clientmountd"))
	if len(words) != 4 || words[0] != "clientmountd" || words[1] != "v1.2.3" || !strings.HasPrefix(words[2], "(go1.") {
		t.Errorf("Line = %q", words)
	}
	if strings.Contains(Line("x"), "\n") {
		t.Error("Line contains a line feed")
	}
}

func TestUserAgent(t *testing.T) {
	defer func(v string) { Version = v }(Version)
	Version = "v1.2.3"
	if got, want := UserAgent("clientmountd", "rabbit-compute-7"), "clientmountd/v1.2.3 (rabbit-compute-7)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
