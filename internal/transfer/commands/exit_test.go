package commands

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/transfer"
)

func TestExitOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{&transfer.Error{Kind: transfer.Failed}, 1},
		{&transfer.Error{Kind: transfer.Invalid}, 2},
		{fmt.Errorf("x: %w", &transfer.Error{Kind: transfer.NotFound}), 3},
		{&transfer.Error{Kind: transfer.TimedOut}, 5},
		{&transfer.Error{Kind: transfer.Denied}, 6},
		{&transfer.Error{Kind: transfer.Unreachable}, 7},
		{&transfer.Error{Kind: transfer.Interrupted}, 1},
		{&detached{signal: syscall.SIGINT}, 130},
		{&detached{signal: syscall.SIGTERM}, 143},
		{errors.New("x"), 1},
	} {
		if got := exitOf(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestExitOfAll(t *testing.T) {
	for want, results := range map[int][][]transfer.Result{
		0: {nil, {""}, {transfer.Success, ""}},
		1: {{transfer.Failure}, {transfer.Refused}, {transfer.Cancelled, transfer.Failure}, {transfer.Deleted, transfer.Success, transfer.Refused}},
		3: {{transfer.Deleted}, {transfer.Cancelled, transfer.Deleted}},
		4: {{transfer.Cancelled}, {transfer.Success, transfer.Cancelled, ""}},
	} {
		for _, list := range results {
			var all []transfer.Movement
			for _, r := range list {
				all = append(all, transfer.Movement{Result: r})
			}
			if got := exitOfAll(all); got != want {
				t.Errorf("%q: %d, want %d", list, got, want)
			}
		}
	}
}

// Each code that can come about is documented.
func TestExitsDocumented(t *testing.T) {
	known := make(map[int]bool)
	for _, e := range exits {
		known[e.code] = e.meaning != ""
	}
	for _, code := range exitOfKind {
		if !known[code] {
			t.Errorf("%d is not documented", code)
		}
	}
	for _, code := range exitOfResult {
		if !known[code] {
			t.Errorf("%d is not documented", code)
		}
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"nnf-dm-node-1": "nnf-dm-node-1", "": "''", "a b": "'a b'", "$(x)": "'$(x)'", "it's": `'it'\''s'`, "a\\n": "'a\\n'",
	} {
		if got := shellWord(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// The help fits a terminal, and every sub-command has what the help needs.
func TestHelp(t *testing.T) {
	for _, c := range commands {
		if c.short == "" || c.run == nil || strings.ContainsAny(c.short[len(c.short)-1:], ".\n") {
			t.Errorf("%s: %+v", c.name, c)
		}
		for line := range strings.Lines(c.long) {
			if len(line) > 100 {
				t.Errorf("%s: a long line: %s", c.name, line)
			}
		}
	}
	var out strings.Builder
	p := &Program{Stdout: &out, Stderr: &out}
	if code := p.Run(context.Background(), []string{"help"}); code != 0 || !strings.Contains(out.String(), "Exit codes:") {
		t.Errorf("%d %s", code, out.String())
	}
}

func TestGetenv(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{nil, ""}, {[]string{"A=1", "AB=2"}, "1"}, {[]string{"A=1", "A=2"}, "2"}, {[]string{"A"}, ""}, {[]string{"A=x=y"}, "x=y"},
	} {
		if got := getenv(tt.environ, "A"); got != tt.want {
			t.Errorf("%q: %q", tt.environ, got)
		}
	}
	if s := defaults([]string{"NNF_DM_SOCKET=", "DW_WORKFLOW_NAMESPACE="}); s.socket != transfer.DefaultSocket || s.namespace != "default" {
		t.Errorf("%+v", s)
	}
}
