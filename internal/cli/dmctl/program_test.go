package dmctl

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
)

func TestExitOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{&client.Error{Kind: client.Failed}, 1},
		{&client.Error{Kind: client.Invalid}, 2},
		{fmt.Errorf("x: %w", &client.Error{Kind: client.NotFound}), 3},
		{&client.Error{Kind: client.TimedOut}, 5},
		{&client.Error{Kind: client.Denied}, 6},
		{&client.Error{Kind: client.Unreachable}, 7},
		{&client.Error{Kind: client.Interrupted}, 1},
		{&cli.Stopped{Verb: detached, Signal: syscall.SIGINT}, 130},
		{&cli.Stopped{Verb: detached, Signal: syscall.SIGTERM}, 143},
		{errors.New("x"), 1},
	} {
		if got := exitOf(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestExitOfAll(t *testing.T) {
	for want, results := range map[int][][]client.Result{
		0: {nil, {""}, {client.Success, ""}},
		1: {{client.Failure}, {client.Refused}, {client.Cancelled, client.Failure}, {client.Deleted, client.Success, client.Refused}},
		3: {{client.Deleted}, {client.Cancelled, client.Deleted}},
		4: {{client.Cancelled}, {client.Success, client.Cancelled, ""}},
	} {
		for _, list := range results {
			var all []client.Movement
			for _, r := range list {
				all = append(all, client.Movement{Result: r})
			}
			if got := exitOfAll(all); got != want {
				t.Errorf("%q: %d, want %d", list, got, want)
			}
		}
	}
}

// Each exit code that can occur is documented.
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

// The environment selects the daemon and the workflow. Empty variables are treated as unset.
func TestDefaults(t *testing.T) {
	v := newCall(&cli.Call{Process: cli.Process{Environ: []string{"NNF_DM_SOCKET=", "DW_WORKFLOW_NAMESPACE=", "DW_WORKFLOW_NAME=job"}}})
	if v.socket != client.DefaultSocket || v.namespace != "default" || v.workflow != "job" {
		t.Errorf("%+v", v.settings)
	}
}
