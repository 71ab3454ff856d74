package config_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

func TestFlagForms(t *testing.T) {
	for _, test := range []struct {
		args []string
		key  string
		want any
		rest []string
	}{
		{[]string{"--node-name", "n"}, "node.name", "n", nil},
		{[]string{"--node-name=n"}, "node.name", "n", nil},
		{[]string{"-node-name", "n"}, "node.name", "n", nil},
		{[]string{"-node-name=n"}, "node.name", "n", nil},
		{[]string{"--kubernetes-service-host", "h"}, "kubernetes.service_host", "h", nil},
		{[]string{"--kubernetes-service-port", "1"}, "kubernetes.service_port", "1", nil},
		{[]string{"--service-token-file", "t"}, "kubernetes.token_file", "t", nil},
		{[]string{"--service-cert-file", "c"}, "kubernetes.cert_file", "c", nil},
		{[]string{"--kubeconfig", "k"}, "kubernetes.kubeconfig", "k", nil},
		{[]string{"--kubernetes-qps", "7"}, "kubernetes.qps", 7, nil},
		{[]string{"--kubernetes-burst", "7"}, "kubernetes.burst", 7, nil},
		{[]string{"--command-timeout=1m"}, "mount.command_timeout", time.Minute, nil},
		{[]string{"--hook-timeout=1m"}, "mount.hook_timeout", time.Minute, nil},
		{[]string{"--orphans", "unmount"}, "mount.orphans", "unmount", nil},
		{[]string{"--mode", "kind"}, "mount.mode", "kind", nil},
		{[]string{"--mock"}, "mount.mode", "mock", nil},
		{[]string{"-mock"}, "mount.mode", "mock", nil},
		{[]string{"--mock=true"}, "mount.mode", "mock", nil},
		{[]string{"--mock=false"}, "mount.mode", "real", nil},
		{[]string{"--mock", "--mode", "kind"}, "mount.mode", "kind", nil},
		{[]string{"--runtime-directory", "/r"}, "daemon.runtime_directory", "/r", nil},
		{[]string{"--shutdown-timeout", "5s"}, "daemon.shutdown_timeout", 5 * time.Second, nil},
		{[]string{"--log-level", "debug"}, "log.level", "debug", nil},
		{[]string{"--log-format", "json"}, "log.format", "json", nil},
		// A value that looks like a flag is still the value.
		{[]string{"--service-token-file", "-mock"}, "kubernetes.token_file", "-mock", nil},
		{[]string{"-service-token-file", "--mock", "x"}, "kubernetes.token_file", "--mock", []string{"x"}},
		{[]string{"--service-token-file", "--"}, "kubernetes.token_file", "--", nil},
		{[]string{"one", "-mock", "two", "-"}, "mount.mode", "mock", []string{"one", "two", "-"}},
		{[]string{"--", "-mock"}, "mount.mode", "real", []string{"-mock"}},
		{[]string{"--mock", "word"}, "mount.mode", "mock", []string{"word"}},
	} {
		r, rest, err := config.Load(at("/dev/null", new(clientmount.Configuration).Table()), config.Sources{Args: test.args})
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
			continue
		}
		if v, _ := r.Lookup(test.key); v.Value != test.want {
			t.Errorf("%q: %s is %v, want %v", test.args, test.key, v.Value, test.want)
		}
		if !slices.Equal(rest, test.rest) {
			t.Errorf("%q: rest %q, want %q", test.args, rest, test.rest)
		}
	}
}

func TestFlagErrorsAreUsageErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--nodename=x"}, "unknown flag --nodename (did you mean --node-name?)"},
		{[]string{"-nodename", "x"}, "unknown flag --nodename (did you mean --node-name?)"},
		{[]string{"--hlep"}, "unknown flag --hlep (did you mean --help?)"},
		{[]string{"--zap-devl"}, "unknown flag --zap-devl"},
		{[]string{"--zzz\nforged"}, `unknown flag --"zzz\nforged"`},
		{[]string{"--node-name"}, "flag needs an argument: --node-name"},
		{[]string{"--command-timeout=banana"}, `flag --command-timeout: mount.command_timeout: "banana" is not a duration, accepted: a number with a unit, for example "30s", "5m" or "1h30m"`},
		{[]string{"--log-level", "loud"}, `flag --log-level: log.level: "loud" is not a valid value, accepted: debug, info, warn, error`},
		{[]string{"--kubernetes-qps=0"}, `flag --kubernetes-qps: kubernetes.qps: 0 is out of range, accepted: 1 to 1000`},
		{[]string{"-x"}, "unknown flag -x"},
		{[]string{"--=x"}, "bad flag syntax: --=x"},
		{[]string{"--=x\nforged"}, "bad flag syntax: --=x forged"},
	} {
		_, _, err := config.Load(at("/dev/null", new(clientmount.Configuration).Table()), config.Sources{Args: test.args})
		have := fmt.Sprint(err)
		if next := hint.Of(err); next != "" {
			have += " (" + next + ")"
		}
		if have != test.want {
			t.Errorf("%q: got  %s\nwant %s", test.args, have, test.want)
		}
		if _, ok := errors.AsType[*usage.Error](err); !ok {
			t.Errorf("%q: %T is not a usage error", test.args, err)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"--help"}, {"-help"}, {"--mock", "-h"}, {"x", "-h", "--nonsense"}} {
		_, _, err := config.Load(new(clientmount.Configuration).Table(), config.Sources{Args: append([]string{"--config=/nonexistent"}, args...)})
		if !errors.Is(err, config.ErrHelp) {
			t.Errorf("%q: %v", args, err)
		}
		if _, ok := errors.AsType[*usage.Error](err); ok {
			t.Errorf("%q is a usage error", args)
		}
	}
}

// The logging flags of earlier daemons are accepted and ignored, with their values.
func TestLegacyFlags(t *testing.T) {
	args := strings.Fields("-zap-devel --zap-encoder console --zap-log-level=debug --zap-stacktrace-level error -zap-time-encoding iso8601 --node-name n")
	c, r, err := loadIn(t, t.TempDir(), nil, args)
	if err != nil || c.Node != "n" || c.Log.Level.Level() != slog.LevelInfo {
		t.Fatalf("%q, %q, %v", c.Node, c.Log.Level.Level(), err)
	}
	if len(r.Warnings) != 5 {
		t.Fatalf("warnings %q", r.Warnings)
	}
	for i, flag := range []string{"devel", "encoder", "log-level", "stacktrace-level", "time-encoding"} {
		if want := "flag --zap-" + flag + " no longer has any effect: "; !strings.HasPrefix(r.Warnings[i], want) {
			t.Errorf("%q, want %q", r.Warnings[i], want)
		}
	}
}

// A flag that is given several times causes one warning.
func TestLegacyFlagWarnsOnce(t *testing.T) {
	_, r, err := loadIn(t, t.TempDir(), nil, []string{"--zap-devel", "--zap-devel=false"})
	if err != nil || len(r.Warnings) != 1 {
		t.Errorf("%q, %v", r.Warnings, err)
	}
}

func TestCheckArgs(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "nonsense") // the environment is not read
	for _, tt := range []struct {
		args string
		rest []string
		hint string
	}{
		{"", nil, ""},
		{"--node-name x -kubernetes-qps=5 --config=/none/such", nil, ""},
		{"--zap-devel", nil, ""},
		{"--node-name x now", []string{"now"}, ""},
		{"--node-nam x", nil, "did you mean --node-name?"},
		{"--kubernetes-qps=none", nil, "kubernetes.qps"},
		{"--node-name", nil, "node-name"},
	} {
		rest, err := config.CheckArgs(new(clientmount.Configuration).Table(), strings.Fields(tt.args))
		if _, wrong := errors.AsType[*usage.Error](err); wrong != (tt.hint != "") || wrong && !strings.Contains(err.Error()+hint.Of(err), tt.hint) {
			t.Errorf("%q: %v", tt.args, err)
		} else if err == nil && !slices.Equal(rest, tt.rest) {
			t.Errorf("%q: rest %q", tt.args, rest)
		}
	}
	if _, err := config.CheckArgs(new(clientmount.Configuration).Table(), []string{"--node-name=x", "-h"}); !errors.Is(err, config.ErrHelp) {
		t.Errorf("help: %v", err)
	}
}
