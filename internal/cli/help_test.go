package cli

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestDescribe(t *testing.T) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringP("output", "o", "text", "`FORMAT` of the answer")
	f.Bool("wait", false, "wait")
	f.Duration("timeout", 0, "no longer than `DURATION`")
	f.StringArray("daemon", nil, "`NAME` of it")
	f.Int("parallel", 32, "`N` at once")
	want := []Flag{
		{"output", "o", "FORMAT", "FORMAT of the answer", "text"}, {"wait", "", "", "wait", ""},
		{"timeout", "", "DURATION", "no longer than DURATION", ""}, {"daemon", "", "NAME", "NAME of it", ""}, {"parallel", "", "N", "N at once", "32"},
	}
	got := describe(f)
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

func TestManual(t *testing.T) {
	g := Guide{
		Commands:    []Entry{{Name: "copy", Synopsis: "x copy A", Short: "copy a thing", Long: "At length.", Flags: []Flag{{"a", "b", "C", "this | that", "d"}}}},
		Flags:       []Flag{{"help", "h", "", "show", ""}},
		Environment: []Variable{{"HOME", "home"}},
		Exits:       []Exit{{0, "done"}},
	}
	text := g.Manual()
	for _, want := range []string{"### copy\n\n    x copy A\n\nCopy a thing.\n\nAt length.\n", "| `-b`, `--a C` | this \\| that | `d` |", "| `-h`, `--help` | show |  |", "| `HOME` | home |", "| 0 | done |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
