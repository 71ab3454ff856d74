package commands

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"
)

func TestExitOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {&stopped{signal: syscall.SIGINT}, 130}, {&stopped{signal: syscall.SIGTERM}, 143},
	} {
		if got := exitOf(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

// The help fits a terminal, and every verb has what the help needs.
func TestTable(t *testing.T) {
	meaning := map[string]string{}
	for _, c := range commands {
		if c.short == "" || c.run == nil || strings.ContainsAny(c.short[len(c.short)-1:], ".\n") {
			t.Errorf("%s: %+v", c.name, c)
		}
		for line := range strings.Lines(c.long) {
			if len(line) > 100 {
				t.Errorf("%s: a long line: %s", c.name, line)
			}
		}
		for _, e := range c.examples {
			if !strings.HasPrefix(e.line, Name+" "+c.name) || e.comment == "" {
				t.Errorf("%s: %+v", c.name, e)
			}
		}
		// The completion relies on it.
		c.ownFlags().VisitAll(func(f *pflag.Flag) {
			takes := "no value"
			if f.NoOptDefVal == "" {
				takes = "a value"
			}
			if was := meaning[f.Name]; was != "" && was != takes {
				t.Errorf("--%s takes %s here, and %s elsewhere", f.Name, takes, was)
			}
			meaning[f.Name] = takes
		})
	}
}

// A signal ends what waits, and is its exit code.
func TestSignal(t *testing.T) {
	waits := &command{name: "waits", run: func(ctx context.Context, _ *call) error { <-ctx.Done(); return ctx.Err() }}
	was := commands
	commands = append([]*command{waits}, commands...)
	defer func() { commands = was }()
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	var out strings.Builder
	p := &Program{Stdout: &out, Stderr: &out, Signals: signals}
	if code := p.Run(t.Context(), []string{"waits"}); code != 143 || out.String() != "nnf-deploy: ended by terminated\n" {
		t.Errorf("%d %q", code, out.String())
	}
}

func TestGetenv(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{nil, ""}, {[]string{"A=1", "AB=2"}, "1"}, {[]string{"A=1", "A=2"}, "2"}, {[]string{"A"}, ""}, {[]string{"A=x=y"}, "x=y"}, {[]string{"A="}, ""},
	} {
		s := defaults(tt.environ)
		if got := s.getenv("A"); got != tt.want {
			t.Errorf("%q: %q", tt.environ, got)
		}
	}
}

func TestReference(t *testing.T) {
	g := Reference()
	if len(g.Commands) != len(commands) || len(g.Exits) != len(exits) || len(g.Environment) == 0 {
		t.Errorf("%+v", g)
	}
	for _, f := range g.Flags {
		if f.Name == "output" && (f.Letter != "o" || f.Default != "text" || f.Value != "FORMAT") {
			t.Errorf("%+v", f)
		}
	}
	for _, c := range g.Commands {
		for _, f := range c.Flags {
			if f.Default == "[]" || f.Default == "false" {
				t.Errorf("%s --%s: default %s", c.Name, f.Name, f.Default)
			}
		}
	}
}
