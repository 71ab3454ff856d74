package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// The tests of the programs run the scripts in the shells.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range Shells {
		script := shop().Completion(shell)
		if !strings.Contains(script, "__complete "+shell) || strings.Contains(strings.NewReplacer("[@]", "", "(@", "").Replace(script), "@") && shell != "zsh" {
			t.Errorf("%s:\n%s", shell, script)
		}
		for _, place := range []string{"@NAME@", "@FUNCTION@"} {
			if strings.Contains(script, place) {
				t.Errorf("%s: %s was not replaced", shell, place)
			}
		}
	}
}

func TestComplete(t *testing.T) {
	names := "words echo fail wait completion help"
	for _, tt := range []struct{ line, want string }{
		{"", names},
		{"ec", "words echo"},
		{"help ", names},
		{"help fa", "words fail"},
		{"nonsense ", "words"},
		{"completion f", "words fish"},
		{"echo ", "files"},
		{"wait ", "words"},
		{"echo --", "words --loud --times --help"},
		{"--", "words --loud --help"},
		{"echo --times ", "words"},
		{"echo --colour ", "words red green"},
		{"echo --colour=g", "words green"},
		{"echo --colour = g", "words green"}, // as split by bash
		{"echo --colour = ", "words red green"},
		{"echo --colour =", "words red green"},
		{"echo --out x", "directories"},
		{"echo --nonsense=x", "words"},
		{"--loud --nonsense echo --ti", "words --times"},
		{"echo -c r", "words red"},
		{"fail ", "words one loud=false"},
		{"-l fail lo", "words loud=true"},
		{"fail --loud ", "words one loud=true"},
	} {
		p := shop()
		p.Commands[1].Complete = "list"
		echo := p.Commands[0].Flags
		p.Commands[0].Flags = func(f *pflag.FlagSet, v *order) {
			echo(f, v)
			f.StringP("colour", "c", "", "`COLOUR` of it")
			Words(f, "colour", "red", "green")
			f.String("out", "", "`DIR` for it")
		}
		if strings.Contains(tt.line, "echo --") && strings.HasSuffix(tt.line, "--") {
			p.Commands[0].Flags = echo
		}
		p.Commands = append(p.Commands[:3:3], &Command[*order]{Name: "list", Run: func(_ context.Context, v *order) error {
			_, err := fmt.Fprintf(v.Stdout, "one loud=%t\n", v.loud)
			return err
		}})
		var out strings.Builder
		code := p.Run(t.Context(), Process{Stdout: &out}, append([]string{"__complete", "bash"}, strings.Split(tt.line, " ")...))
		got := strings.Fields(out.String())
		got = slices.DeleteFunc(got, func(w string) bool { return w == "list" })
		if code != 0 || strings.Join(got, " ") != tt.want {
			t.Errorf("%q: %d %q, want %q", tt.line, code, got, tt.want)
		}
	}
}
