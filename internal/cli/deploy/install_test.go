package deploy

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

// Further packages from a pattern that the shell has expanded are not host lists.
func TestArgumentsOfInstall(t *testing.T) {
	none := func(string) bool { return false }
	good := func() installSettings {
		return installSettings{identity: identityShared, lifetime: nodeLifetime, ready: time.Minute, rollout: rollout{limit: time.Minute, nodes: nodesSettings{parallel: 1, ssh: remote.SSH{Connect: time.Second}}}}
	}
	c := good()
	c.rpms = []string{"a.rpm"}
	names, err := c.check([]string{"b.rpm", "compute-01"}, none)
	if err != nil || !slices.Equal(names, []string{"compute-01"}) || !slices.Equal(c.rpms, []string{"a.rpm", "b.rpm"}) {
		t.Errorf("%q %q %v", names, c.rpms, err)
	}
	c = good()
	if names, err = c.check([]string{"b.rpm"}, none); err != nil || !slices.Equal(names, []string{"b.rpm"}) {
		t.Errorf("%q %v", names, err)
	}
}

// Options for the tokens of single nodes that contradict others are usage errors.
func TestIdentityArguments(t *testing.T) {
	for args, want := range map[string]string{
		"install --identity x":                                                   "--identity must be one of shared, per-node",
		"install --lifetime 1h":                                                  "--lifetime requires --identity per-node",
		"install --identity per-node --lifetime 9m":                              "--lifetime must be at least 10m",
		"install --identity per-node --credentials d":                            "mutually exclusive",
		"credentials --out d --identity x":                                       "--identity must be one of shared, per-node",
		"credentials --out d --identity per-node":                                "requires --node NAME",
		"credentials --out d --identity per-node --node a --bound":               "cannot be used with --identity per-node",
		"credentials --out d --identity per-node --node a --secret s --daemon x": "--daemon must be",
		"credentials --out d --identity per-node --node a --wait 1s":             "cannot be used with --identity per-node",
		"credentials --out d --identity per-node --node a[1-2]":                  "expands to 2 nodes",
		"credentials --out d --lifetime 1h":                                      "--node and --lifetime require",
	} {
		var stdout, stderr bytes.Buffer
		code := Program.Run(t.Context(), cli.Process{Stdout: &stdout, Stderr: &stderr}, strings.Fields(args))
		if code != cli.ExitUsage || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: %d %s", args, code, &stderr)
		}
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
		err  bool
	}{
		{"", nil, false},
		{"  ", nil, false},
		{"--kubernetes-qps 50  --kubernetes-burst 100", []string{"--kubernetes-qps", "50", "--kubernetes-burst", "100"}, false},
		{`--x="a b" 'c d'e`, []string{"--x=a b", "c de"}, false},
		{`"" ''`, []string{"", ""}, false},
		{`"it's" 'say "hi"'`, []string{"it's", `say "hi"`}, false},
		{`$HOME $(id) \n`, []string{"$HOME", "$(id)", `\n`}, false},
		{`"open`, nil, true},
		{"a'", nil, true},
	} {
		if got, err := words(tt.text); !slices.Equal(got, tt.want) || (err != nil) != tt.err {
			t.Errorf("%q: %q %v", tt.text, got, err)
		}
	}
}

// lateShell is a node on which every script is stopped.
type lateShell struct{}

func (lateShell) Run(_ context.Context, node string, _ remote.Script, _ io.Reader, _ io.Writer) error {
	return &remote.Error{Node: node, Kind: remote.Interrupted, Text: "it did not finish within 10s"}
}

// If the check after an installation is stopped, the result does not claim that nothing was changed.
func TestStoppedCheck(t *testing.T) {
	r := fleet.Result{State: fleet.OK}
	verify(t.Context(), lateShell{}, &target.Want{Node: "n"}, &r)
	if want := "the installation succeeded, but the check after it failed: interrupted: it did not finish within 10s"; r.State != fleet.Failed || r.Cause != want {
		t.Errorf("%s: %s", r.State, r.Cause)
	}
}
