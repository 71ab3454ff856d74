package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// order is a call of the test program.
type order struct {
	*Call
	loud  bool
	times int
}

var errSpecial = errors.New("special")

// shop returns a test program that uses each field of Program.
func shop() *Program[*order] {
	echo := func(_ context.Context, v *order) error {
		fmt.Fprintf(v.Stdout, "%q loud=%t times=%d given=%t\n", v.Args, v.loud, v.times, v.Given("times"))
		v.Code = 7
		return nil
	}
	return &Program[*order]{
		Name: "shop", About: "Sells things.",
		New: func(c *Call) *order { return &order{Call: c, times: len(c.Getenv("TIMES"))} },
		Flags: func(f *pflag.FlagSet, v *order) {
			f.BoolVarP(&v.loud, "loud", "l", v.loud, "say it loud")
		},
		Check: func(v *order) error {
			if v.times < 0 {
				return usage.Errorf("--times cannot be negative")
			}
			return nil
		},
		Commands: []*Command[*order]{
			{Name: "echo", Args: "WORD...", Short: "say words", Long: "At length.", Least: 1, Most: 2, Complete: Files, Run: echo,
				Examples: []Example{{"Once:", "shop echo a"}},
				Flags:    func(f *pflag.FlagSet, v *order) { f.IntVar(&v.times, "times", v.times, "say it `N` times") }},
			{Name: "fail", Short: "fail", Most: -1, Complete: "list", Run: func(context.Context, *order) error { return fmt.Errorf("bad\x1b: %w", errSpecial) }},
			{Name: "wait", Short: "wait", Run: func(ctx context.Context, v *order) error {
				ctx, cancel := v.Interruptible(ctx, "")
				defer cancel(nil)
				<-ctx.Done()
				return Interrupted(ctx, ctx.Err())
			}},
		},
		Environment: []Variable{{"TIMES", "how often"}},
		Exits:       []Exit{{ExitOK, "done"}},
	}
}

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		line           string
		code           int
		stdout, stderr string
	}{
		{"", 2, "", "shop: error: a command is missing\nshop: hint: see shop --help\n"},
		{"buy", 2, "", "shop: error: unknown command \"buy\"\nshop: hint: see shop --help\n"},
		{"ecoh", 2, "", "shop: error: unknown command \"ecoh\"\nshop: hint: did you mean \"echo\"? see shop --help\n"},
		{"compl", 2, "", "shop: error: unknown command \"compl\"\nshop: hint: did you mean \"completion\"? see shop --help\n"},
		{"help wiat", 2, "", "shop: error: unknown command \"wiat\"\nshop: hint: did you mean \"wait\"? see shop help --help\n"},
		{"echo --tmes 3 a", 2, "", "shop: error: unknown flag --tmes\nshop: hint: did you mean --times? see shop echo --help\n"},
		{"echo -loud a", 2, "", "shop: error: unknown flag -oud\nshop: hint: did you mean --loud? see shop echo --help\n"},
		{"echo --hlep", 2, "", "shop: error: unknown flag --hlep\nshop: hint: did you mean --help? see shop echo --help\n"},
		{"--no", 2, "", "shop: error: unknown flag --no\nshop: hint: see shop --help\n"},
		{"echo a", 7, "[\"a\"] loud=false times=0 given=false\n", ""},
		{"-l echo a --times 3 b", 7, "[\"a\" \"b\"] loud=true times=3 given=true\n", ""},
		{"echo --loud -- a", 7, "[\"a\"] loud=true times=0 given=false\n", ""},
		{"echo", 2, "", "shop: error: echo needs WORD...\nshop: hint: see shop echo --help\n"},
		{"echo a b c", 2, "", "shop: error: unexpected argument \"c\"\nshop: hint: see shop echo --help\n"},
		{"echo a --times -1", 2, "", "shop: error: --times cannot be negative\nshop: hint: see shop echo --help\n"},
		{"echo a --times x", 2, "", "shop: error: flag --times: \"x\" is not a whole number\nshop: hint: see shop echo --help\n"},
		{"fail a b", 1, "", "shop: error: bad\\x1b: special\n"},
		{"help nothing", 2, "", "shop: error: unknown command \"nothing\"\nshop: hint: see shop help --help\n"},
		{"completion", 2, "", "shop: error: completion needs the name of the shell: bash, zsh, fish\nshop: hint: see shop completion --help\n"},
		{"completion csh", 2, "", "shop: error: unknown shell \"csh\"\nshop: hint: did you mean \"zsh\"? see shop completion --help\n"},
	} {
		var stdout, stderr strings.Builder
		code := shop().Run(t.Context(), Process{Stdout: &stdout, Stderr: &stderr}, strings.Fields(tt.line))
		if code != tt.code || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
			t.Errorf("%q: exit code %d\n%s%s", tt.line, code, stdout.String(), stderr.String())
		}
	}
}

func TestHelp(t *testing.T) {
	say := func(line string, want ...string) {
		t.Helper()
		var stdout, stderr strings.Builder
		if code := shop().Run(t.Context(), Process{Stdout: &stdout, Stderr: &stderr}, strings.Fields(line)); code != 0 || stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, %s", line, code, stderr.String())
		}
		for _, w := range want {
			if !strings.Contains(stdout.String(), w) {
				t.Errorf("%s: no %q in\n%s", line, w, stdout.String())
			}
		}
	}
	all := []string{"Sells things.\n", "  echo WORD...       say words\n", "  help [COMMAND]     show", "  -l, --loud", "--version", "  TIMES ", "    0  done\n"}
	say("help", all...)
	say("--help", all...)
	one := []string{"Usage: shop echo [FLAGS] WORD...\n\nSay words.\n\nAt length.\n", "--times N", "\nOnce:\n\n    shop echo a\n"}
	say("help echo", one...)
	say("echo --help", one...)
	say("--version", "shop ")

	part := shop()
	part.Part = true
	var help strings.Builder
	if code := part.Run(t.Context(), Process{Stdout: &help}, []string{"echo", "--help"}); code != 0 || !strings.Contains(help.String(), "  -l, --loud") ||
		!strings.Contains(help.String(), "--times N") || !strings.HasSuffix(help.String(), "\nExit codes:\n"+part.exits()) {
		t.Errorf("exit code %d\n%s", code, help.String())
	}
}

func TestExitOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {StoppedBy("", os.Interrupt), 130}, {fmt.Errorf("x: %w", StoppedBy("left", syscall.SIGTERM)), 143},
	} {
		if got := ExitOf(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
	p := shop()
	p.ExitOf = func(err error) int { return map[bool]int{true: 9, false: 1}[errors.Is(err, errSpecial)] }
	var out strings.Builder
	if code := p.Run(t.Context(), Process{Stdout: &out, Stderr: &out}, []string{"fail"}); code != 9 {
		t.Errorf("exit code from Program.ExitOf: %d", code)
	}
}

// A signal ends a waiting command and determines the exit code.
func TestSignal(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	var out strings.Builder
	if code := shop().Run(t.Context(), Process{Stdout: &out, Stderr: &out, Signals: signals}, []string{"wait"}); code != 143 || out.String() != "shop: error: ended by SIGTERM\n" {
		t.Errorf("%d %q", code, out.String())
	}
	if text := StoppedBy("detached", os.Interrupt).Error(); text != "detached by SIGINT" {
		t.Error(text)
	}
}

func TestGetenv(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{nil, ""}, {[]string{"A=1", "AB=2"}, "1"}, {[]string{"A=1", "A=2"}, "2"}, {[]string{"A"}, ""}, {[]string{"A=x=y"}, "x=y"}, {[]string{"A="}, ""},
	} {
		c := Call{Process: Process{Environ: tt.environ}}
		if got := c.Getenv("A"); got != tt.want {
			t.Errorf("%q: %q", tt.environ, got)
		}
	}
}

func TestGuide(t *testing.T) {
	g := shop().Guide()
	var names []string
	for _, c := range g.Commands {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "echo fail wait completion help" {
		t.Error(got)
	}
	if c := g.Commands[0]; c.Synopsis != "shop echo [FLAGS] WORD..." || len(c.Flags) != 1 || c.Flags[0] != (Flag{"times", "", "N", "say it N times", ""}) || len(c.Examples) != 1 {
		t.Errorf("%+v", c)
	}
	if len(g.Flags) != 2 || g.Flags[0].Letter != "l" || g.Flags[1].Name != "help" || len(g.Environment) != 1 || len(g.Exits) != 1 {
		t.Errorf("%+v", g)
	}
}

// The names of a group of commands have two words.
func TestGroups(t *testing.T) {
	p := shop()
	for _, second := range []string{"add", "list"} {
		p.Commands = append(p.Commands, &Command[*order]{Name: "stock " + second, Args: "[ITEM]", Short: second + " items", Most: 1,
			Flags: func(f *pflag.FlagSet, v *order) { f.Bool("all", false, "all of them") },
			Run: func(_ context.Context, v *order) error {
				_, err := fmt.Fprintf(v.Stdout, "%s %q loud=%t\n", second, v.Args, v.loud)
				return err
			}})
	}
	help := "Usage: shop stock COMMAND [FLAGS] [ARGUMENTS]\n\nCommands; COMMAND --help shows the flags:\n  stock add [ITEM]   add items\n  stock list [ITEM]  list items\n"
	for _, tt := range []struct {
		line           string
		code           int
		stdout, stderr string
	}{
		{"stock add x", 0, "add [\"x\"] loud=false\n", ""},
		{"-l stock list --all", 0, "list [] loud=true\n", ""},
		{"stock", 2, "", "shop: error: stock needs a command: add, list\nshop: hint: see shop stock --help\n"},
		{"stock --all add", 2, "", "shop: error: the command must follow stock, before its flags: add, list\nshop: hint: see shop stock --help\n"},
		{"stock lits", 2, "", "shop: error: unknown stock command \"lits\"\nshop: hint: did you mean \"list\"? see shop stock --help\n"},
		{"stokc add", 2, "", "shop: error: unknown command \"stokc\"\nshop: hint: did you mean \"stock\"? see shop --help\n"},
		{"stock add --al", 2, "", "shop: error: unknown flag --al\nshop: hint: did you mean --all? see shop stock add --help\n"},
		{"stock --help", 0, help, ""},
		{"help stock", 0, help, ""},
		{"help stock no", 2, "", "shop: error: unknown stock command \"no\"\nshop: hint: use add or list; see shop help --help\n"},
		{"__complete bash st", 0, "words\nstock\n", ""},
		{"__complete fish st", 0, "words\nstock\tadd, list\n", ""},
		{"__complete bash stock l", 0, "words\nlist\n", ""},
		{"__complete bash -l stock ", 0, "words\nadd\nlist\n", ""},
		{"__complete bash stock add --a", 0, "words\n--all\n", ""},
		{"__complete bash help stock a", 0, "words\nadd\n", ""},
		{"__complete bash help echo ", 0, "words\n", ""},
		{"__complete bash stock add ", 0, "words\n", ""},
	} {
		var stdout, stderr strings.Builder
		code := p.Run(t.Context(), Process{Stdout: &stdout, Stderr: &stderr}, strings.Split(tt.line, " "))
		if code != tt.code || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
			t.Errorf("%s: %d\n%s%s", tt.line, code, &stdout, &stderr)
		}
	}
	var stdout strings.Builder
	if p.Run(t.Context(), Process{Stdout: &stdout}, []string{"help", "stock", "add"}); !strings.HasPrefix(stdout.String(), "Usage: shop stock add [FLAGS] [ITEM]\n") {
		t.Error(stdout.String())
	}
}
