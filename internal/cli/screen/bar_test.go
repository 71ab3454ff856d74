package screen

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func TestRedraws(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		columns, rows uint16
		term          string
		want          bool
	}{
		{80, 24, "xterm", true},
		{80, 24, "", true},
		{1, 1, "xterm", true},
		{80, 24, "dumb", false},
		{0, 0, "xterm", false},
		{80, 0, "xterm", false},
		{0, 24, "xterm", false},
	} {
		f := script.OpenTerminal(t, tt.columns, tt.rows).Screen
		if got, ok := Redraws(f, tt.term); ok != tt.want || ok && got != f {
			t.Errorf("%d×%d, TERM=%s: %v", tt.columns, tt.rows, tt.term, ok)
		}
	}
	if _, ok := Redraws(file, "xterm"); ok {
		t.Error("a file is treated as a terminal")
	}
	if _, ok := Redraws(new(bytes.Buffer), "xterm"); ok {
		t.Error("a buffer is treated as a terminal")
	}
}

func TestBar(t *testing.T) {
	terminal := script.OpenTerminal(t, 100, 24)
	var below atomic.Value
	below.Store("a \x1b[31mmessage")
	b := NewBar(terminal.Screen, "prog", 4, BarTexts{
		Before: func() string { return "before " }, After: func() string { return " after" }, Below: func() string { return below.Load().(string) },
	})
	shows := func(what string) {
		t.Helper()
		wait.Until(t, what, func() bool { return strings.Contains(terminal.Shown(), what) })
	}
	shows("before [                            ]")
	shows(" after")
	shows(`a \x1b[31mmessage`)
	b.Set(2)
	shows("before [=============>              ]")
	below.Store(strings.Repeat("x", 200))
	shows(strings.Repeat("x", 98) + "…")
	b.Set(4)
	b.Say("a line")
	shows("prog: a line")
	b.Close()
	terminal.Screen.Close()
	if shown := terminal.Ended(); !regexp.MustCompile(`before \[=+>?\] after`).MatchString(shown) || strings.Contains(shown, "\x1b[31m") || strings.Contains(shown, strings.Repeat("x", 99)) {
		t.Errorf("%q", shown)
	}
}

func TestFit(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"short", 80, "short"},
		{"exactly", 8, "exactly"},
		{"exactly!", 8, "exactl…"},
		{"\x1b[2Jevil", 80, "\\x1b[2Jevil"},
		{"any", 0, "…"},
		{"漢字漢字", 8, "漢字漢…"},
		{"", 10, ""},
	} {
		if got := fit(tt.text, tt.width); got != tt.want {
			t.Errorf("%q in %d columns: %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	l := NewLines(&b, "prog")
	l.Say("one")
	l.Say("two")
	if b.String() != "prog: one\nprog: two\n" {
		t.Errorf("%q", b.String())
	}
}
