package text

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"version", "mount.command_timeout", "mount.hook_timeout", "log.level", "log.format", "kubernetes.qps"}
	for text, want := range map[string]string{
		"mount.comand_timeout":  "mount.command_timeout",
		"mount.commandtimeout":  "mount.command_timeout",
		"Mount.Command_Timeout": "mount.command_timeout",
		"log.levle":             "log.level",
		"verison":               "version",
		"hook_timeout":          "mount.hook_timeout",
		"daemon.level":          "log.level",
		"vers":                  "version",
		"kub":                   "kubernetes.qps",
		"mount.":                "",
		"colour":                "",
		"":                      "",
		"x":                     "",
	} {
		if got := Nearest(text, known); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := Nearest("a.same", []string{"bbbbbbb.same", "ccccccc.same"}); got != "" {
		t.Errorf("a name in two sections suggests %q", got)
	}
	if got := Nearest(strings.Repeat("version", 100), known); got != "" {
		t.Errorf("a huge word suggests %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"kitten", "sitting", 3}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%q, %q: %d, want %d", test.a, test.b, got, test.want)
		}
		if got := distance(test.b, test.a); got != test.want {
			t.Errorf("%q, %q: %d, want %d", test.b, test.a, got, test.want)
		}
	}
}
