package commands

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/subcommand"
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
		{&subcommand.Stopped{Verb: detached, Signal: syscall.SIGINT}, 130},
		{&subcommand.Stopped{Verb: detached, Signal: syscall.SIGTERM}, 143},
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
		known[e.Code] = e.Meaning != ""
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

// Where the daemon and the workflow are, is in the environment; what is empty there
// is not said.
func TestDefaults(t *testing.T) {
	v := newCall(&subcommand.Call{Process: subcommand.Process{Environ: []string{"NNF_DM_SOCKET=", "DW_WORKFLOW_NAMESPACE=", "DW_WORKFLOW_NAME=job"}}})
	if v.socket != transfer.DefaultSocket || v.namespace != "default" || v.workflow != "job" {
		t.Errorf("%+v", v.settings)
	}
}
