package usage

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

func TestUnknown(t *testing.T) {
	many := []string{"copy", "status", "wait", "cancel", "list"}
	for _, tt := range []struct {
		word       string
		known      []string
		text, next string
	}{
		{"stauts", many, `unknown command "stauts"`, `did you mean "status"?`},
		{"canc", many, `unknown command "canc"`, `did you mean "cancel"?`},
		{"nonsense", many, `unknown command "nonsense"`, ""},
		{"nonsense", []string{"a", "b", "c"}, `unknown command "nonsense"`, "use a, b or c"},
		{"nonsense", []string{"a"}, `unknown command "nonsense"`, "use a"},
		{"", many, `unknown command ""`, ""},
		{"a\x1b[31m\n", many, `unknown command "a\x1b[31m\n"`, ""},
	} {
		err := Unknown("command", tt.word, tt.known)
		if wrong := (*Error)(nil); err.Error() != tt.text || hint.Of(err) != tt.next || !errors.As(err, &wrong) {
			t.Errorf("%q: %q, %q", tt.word, err, hint.Of(err))
		}
	}
	if err := Unknown("command", strings.Repeat("x", 10_000), many); len(err.Error()) > 200 {
		t.Errorf("a long word gives %d bytes", len(err.Error()))
	}
}

func TestFlagError(t *testing.T) {
	for _, tt := range []struct{ args, text, next string }{
		{"--tiemout 1s", "unknown flag --tiemout", "did you mean --timeout?"},
		{"--time 1s", "unknown flag --time", "did you mean --timeout?"},
		{"--hlep", "unknown flag --hlep", "did you mean --help?"},
		{"--secre", "unknown flag --secre", ""}, // hidden flags are not suggested
		{"-x", "unknown flag -x", ""},
		{"-timeout", "unknown flag -timeout", "did you mean --timeout?"},
		{"--a\x1b[31m", `unknown flag --"a\x1b[31m"`, ""},
		{"--slots many", `flag --slots: "many" is not a whole number`, ""},
		{"--slots 99999999999", `flag --slots: "99999999999" is out of range`, ""},
		{"--wait=perhaps", `flag --wait: "perhaps" is neither true nor false`, ""},
		{"--timeout never", `flag --timeout: "never" is not a duration, for example 90s or 2h`, ""},
		{"--slots", "flag needs an argument: --slots", ""},
		{"--=x", "bad flag syntax: --=x", ""},
	} {
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		set.Usage = func() {}
		set.Duration("timeout", 0, "")
		set.Int32("slots", 0, "")
		set.Bool("wait", false, "")
		set.Bool("secret", false, "")
		if err := set.MarkHidden("secret"); err != nil {
			t.Fatal(err)
		}
		err := FlagError(set, set.Parse(strings.Fields(tt.args)))
		if wrong := (*Error)(nil); err.Error() != tt.text || hint.Of(err) != tt.next || !errors.As(err, &wrong) {
			t.Errorf("%q: %q, %q", tt.args, err, hint.Of(err))
		}
	}
	if err := FlagError(nil, pflag.ErrHelp); !errors.Is(err, pflag.ErrHelp) {
		t.Error(err)
	}
}
