package config_test

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// Each layer overrides the ones before it, and the origin is correct.
func TestLayers(t *testing.T) {
	main := "[node]\nname = \"from-file\"\n"
	drop := "\n\nnode.name = \"from-dropin\"\n"
	env := []string{"NODE_NAME=from-env", "NODE_NAME=second-is-ignored"}
	for _, test := range []struct {
		name         string
		files        map[string]string
		environ      []string
		args         []string
		want, origin string
		layer        config.Layer
	}{
		{"default", nil, nil, nil, "", "default", config.Default},
		{"file", map[string]string{"config.toml": main}, nil, nil, "from-file", "DIR/config.toml:2", config.File},
		{"drop-in", map[string]string{"config.toml": main, "config.d/a.toml": drop}, nil, nil, "from-dropin", "DIR/config.d/a.toml:3", config.File},
		{"drop-in alone", map[string]string{"config.d/a.toml": drop}, nil, nil, "from-dropin", "DIR/config.d/a.toml:3", config.File},
		{"environment", map[string]string{"config.toml": main, "config.d/a.toml": drop}, env, nil, "from-env", "environment NODE_NAME", config.Environment},
		{"empty environment", map[string]string{"config.toml": main}, []string{"NODE_NAME="}, nil, "from-file", "DIR/config.toml:2", config.File},
		{"flag", map[string]string{"config.toml": main, "config.d/a.toml": drop}, env, []string{"--node-name", "from-flag"}, "from-flag", "flag --node-name", config.Flag},
		{"last flag", nil, env, []string{"--node-name=one", "-node-name", "two"}, "two", "flag --node-name", config.Flag},
		{"empty flag", nil, env, []string{"--node-name="}, "", "flag --node-name", config.Flag},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, test.files)
			c, r, err := loadIn(t, dir, test.environ, test.args)
			if err != nil {
				t.Fatal(err)
			}
			v, ok := r.Lookup("node.name")
			if !ok || c.Node != test.want || v.Value != test.want {
				t.Errorf("field %q, value %v, want %q", c.Node, v.Value, test.want)
			}
			if got := strings.ReplaceAll(v.Origin.String(), dir, "DIR"); got != test.origin || v.Origin.Layer != test.layer {
				t.Errorf("origin %s (%d), want %s (%d)", got, v.Origin.Layer, test.origin, test.layer)
			}
		})
	}
}

func TestLookupOfUnknownKey(t *testing.T) {
	_, r, err := loadIn(t, t.TempDir(), nil, nil)
	if _, ok := r.Lookup("no.such"); ok || err != nil {
		t.Errorf("found a missing key, %v", err)
	}
}

func TestDefaults(t *testing.T) {
	c, r, err := loadIn(t, t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want clientmount.Configuration
	want.Kubernetes.QPS, want.Kubernetes.Burst = 20, 40
	want.RenewToken, want.StateDir = true, "/var/lib/clientmountd"
	want.Kubernetes.Timeout, want.Kubernetes.MinWatchTimeout = 30*time.Second, time.Hour
	want.Controller.Limits.Command, want.Controller.Limits.Hook = 2*time.Minute, 10*time.Minute
	want.Controller.Limits.VGWait, want.Controller.Limits.DeviceWait = time.Second, 10*time.Second
	want.Controller.Limits.DeviceRetries, want.Controller.Limits.RetryMax = 8, 30*time.Second
	want.Controller.Orphans, want.Controller.Plan.Mode = "report", "real"
	want.Controller.Plan.Roots, want.Controller.Plan.MountOptions = []string{"/mnt"}, []string{"nosuid", "nodev"}
	want.Controller.Limits.Verify = 10 * time.Hour
	want.Controller.Limits.Busy = clientmount.Busy{Policy: "report", Grace: 30 * time.Second}
	want.Controller.History = clientmount.HistoryLimits{Lives: 200, Bytes: 1 << 20}
	want.RuntimeDirectory, want.Controller.ShutdownTimeout, want.MountNamespace = "/run/clientmountd", time.Minute, "host"
	want.Log.Level, want.Log.Format = new(slog.LevelVar), "auto"
	want.Runtime.MemLimit, want.Runtime.GOGC, want.Runtime.MaxProcs = 20<<20, 100, 1
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
	if len(r.Warnings) > 0 || len(r.Files) > 0 {
		t.Errorf("warnings %q, files %q", r.Warnings, r.Files)
	}
}

// An empty list of options overrides the default.
func TestNoMountOptions(t *testing.T) {
	c, _, err := loadIn(t, write(t, map[string]string{"config.toml": "mount.options = []"}), nil, nil)
	if err != nil || len(c.Controller.Plan.MountOptions) != 0 {
		t.Errorf("options %q, %v", c.Controller.Plan.MountOptions, err)
	}
}

// Every key of the file sets its field.
func TestEveryKeyOfTheFile(t *testing.T) {
	c, _, err := loadIn(t, write(t, map[string]string{"config.toml": `
version = 1
strict_credentials = true
[kubernetes]
service_host = "h"
service_port = 1
token_file = "t"
cert_file = "c"
kubeconfig = "k"
renew_token = false
qps = 2
burst = 3
request_timeout = "4s"
watch_timeout = "5m"
[node]
name = "n"
[mount]
command_timeout = "6s"
hook_timeout = "7s"
vg_wait = "8s"
device_wait = "9s"
device_retries = 10
retry_max = "11s"
orphans = "unmount"
busy = "kill"
busy_grace = "13s"
busy_min_uid = 14
roots = ["/a", "/b"]
options = ["noexec"]
verify_interval = "0s"
servers_file = true
mode = "kind"
mock_path = "m"
[daemon]
runtime_directory = "/r"
state_directory = "/s"
shutdown_timeout = "12s"
mount_namespace = "any"
history_count = 15
history_bytes = 16
[metrics]
textfile = "/m.prom"
[log]
level = "debug"
format = "json"
[runtime]
gomemlimit = "13MiB"
gogc = "off"
gomaxprocs = 14
`}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := clientmount.Configuration{}
	want.Kubernetes.Strict = true
	want.Kubernetes.Host, want.Kubernetes.Port = "h", "1"
	want.Kubernetes.TokenFile, want.Kubernetes.CertFile, want.Kubernetes.Kubeconfig = "t", "c", "k"
	want.Kubernetes.QPS, want.Kubernetes.Burst = 2, 3
	want.Kubernetes.Timeout, want.Kubernetes.MinWatchTimeout = 4*time.Second, 5*time.Minute
	want.Node = "n"
	want.Controller.Limits.Command, want.Controller.Limits.Hook = 6*time.Second, 7*time.Second
	want.Controller.Limits.VGWait, want.Controller.Limits.DeviceWait = 8*time.Second, 9*time.Second
	want.Controller.Limits.DeviceRetries, want.Controller.Limits.RetryMax = 10, 11*time.Second
	want.Controller.Limits.Busy = clientmount.Busy{Policy: "kill", Grace: 13 * time.Second, MinUID: 14}
	want.Controller.History, want.Controller.MetricsFile = clientmount.HistoryLimits{Lives: 15, Bytes: 16}, "/m.prom"
	want.Controller.Orphans, want.Controller.Plan.Roots, want.Controller.Plan.ServersFile = "unmount", []string{"/a", "/b"}, true
	want.Controller.Plan.MountOptions = []string{"noexec"}
	want.Controller.Plan.Mode, want.Controller.Plan.MockPath = "kind", "m"
	want.RuntimeDirectory, want.Controller.ShutdownTimeout, want.MountNamespace = "/r", 12*time.Second, "any"
	want.StateDir = "/s"
	want.Log.Level, want.Log.Format = new(slog.LevelVar), "json"
	want.Log.Level.Set(slog.LevelDebug)
	want.Runtime.MemLimit, want.Runtime.GOGC, want.Runtime.MaxProcs = 13<<20, -1, 14
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
}

// All errors of files and environment are reported together. A usage error is reported
// alone, because the command line may name the wrong file.
func TestErrorsOfAllLayers(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "a = 1\nb = 2"})
	environ := []string{"NNF_COMMAND_TIMEOUT_SECONDS=soon", "NODE_NAME=A"}
	_, _, err := loadIn(t, dir, environ, nil)
	want := strings.ReplaceAll(`D/config.toml:1: unknown key "a"
D/config.toml:2: unknown key "b"
environment NODE_NAME: node.name: "A" is not a valid namespace name, accepted: up to 63 characters (a-z, 0-9, "-"), without "-" at the start or end
environment NNF_COMMAND_TIMEOUT_SECONDS: mount.command_timeout: "soon" is not a number of seconds, accepted: a whole number above 0`, "D/", dir+"/")
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if wrong, ok := errors.AsType[*usage.Error](err); ok {
		t.Errorf("a bad file is a usage error: %v", wrong)
	}
	if problem, ok := errors.AsType[*config.Problem](err); !ok || problem.Line != 1 || problem.File != dir+"/config.toml" {
		t.Errorf("the error has no Problem: %+v", problem)
	}
	_, _, err = loadIn(t, dir, environ, []string{"--nonsense"})
	if _, ok := errors.AsType[*usage.Error](err); !ok || strings.Contains(err.Error(), "\n") {
		t.Errorf("a bad flag: %v", err)
	}
}

func TestConfigFlagNamesTheFile(t *testing.T) {
	dir := write(t, map[string]string{
		"config.toml": "node.name = \"default\"", "other/my.toml": "node.name = \"other\"", "other/config.d/x.toml": "log.level = \"debug\"",
	})
	c, r, err := loadIn(t, dir, nil, []string{"--config", dir + "/other/my.toml"})
	if err != nil || c.Node != "other" || c.Log.Level.Level() != slog.LevelDebug || len(r.Files) != 2 {
		t.Errorf("%q, %v, %v", c.Node, r.Files, err)
	}
	for args, want := range map[string]string{
		"--config=" + dir + "/none": dir + "/none: does not exist (clientmountd config default prints one)",
		"--config=":                 "flag --config: a file name is required",
	} {
		if _, _, err := loadIn(t, dir, nil, []string{args}); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	if c, _, err := loadIn(t, dir, nil, []string{"--config", os.DevNull}); err != nil || c.Node != "" {
		t.Errorf("%s as file: %q, %v", os.DevNull, c.Node, err)
	}
}

func TestMissingFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.toml")
	table := new(clientmount.Configuration).Table()
	if _, _, err := config.Load(at(file, table), config.Sources{}); err != nil {
		t.Errorf("an optional file: %v", err)
	}
	if _, _, err := config.Load(table, config.Sources{Args: []string{"--config", file}}); err == nil {
		t.Error("no error for a missing file of --config")
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		environ []string
		key     string
		want    any
		warning string // substring of the only warning
		err     string // a part
	}{
		{[]string{"KUBERNETES_SERVICE_HOST=10.0.0.1"}, "kubernetes.service_host", "10.0.0.1", "", ""},
		{[]string{"KUBERNETES_SERVICE_PORT=6443"}, "kubernetes.service_port", "6443", "", ""},
		{[]string{"KUBERNETES_SERVICE_PORT=tcp"}, "", nil, "", `environment KUBERNETES_SERVICE_PORT: kubernetes.service_port: "tcp" is not a port`},
		{[]string{"DWS_CLIENT_MOUNT_SERVICE_TOKEN_FILE=/t"}, "kubernetes.token_file", "/t", "", ""},
		{[]string{"DWS_CLIENT_MOUNT_SERVICE_CERT_FILE=/c"}, "kubernetes.cert_file", "/c", "", ""},
		{[]string{"KUBECONFIG=/k"}, "kubernetes.kubeconfig", "", "", ""}, // read by package kube

		{[]string{"NNF_COMMAND_TIMEOUT_SECONDS=90"}, "mount.command_timeout", 90 * time.Second, "", ""},
		{[]string{"NNF_COMMAND_TIMEOUT_SECONDS="}, "mount.command_timeout", 2 * time.Minute, "", ""},
		{[]string{"NNF_COMMAND_TIMEOUT_SECONDS=0"}, "mount.command_timeout", 2 * time.Minute, "NNF_COMMAND_TIMEOUT_SECONDS is ignored", ""},
		{[]string{"NNF_COMMAND_TIMEOUT_SECONDS=90s"}, "", nil, "", `"90s" is not a number of seconds, accepted: a whole number above 0`},
		{[]string{"NNF_COMMAND_TIMEOUT_SECONDS=1.5"}, "", nil, "", "is not a number of seconds"},
		{[]string{"NNF_COMMAND_TIMEOUT_SECONDS=99999999"}, "", nil, "", "is out of range, accepted: 1s to 24h"},

		{[]string{"NNF_MAPPER_WAIT_TIMEOUT=60"}, "mount.vg_wait", time.Minute, "", ""},
		{[]string{"NNF_MAPPER_WAIT_TIMEOUT=60"}, "mount.device_wait", time.Minute, "", ""},

		{[]string{"ENVIRONMENT=kind"}, "mount.mode", "kind", "", ""},
		{[]string{"ENVIRONMENT=production"}, "mount.mode", "real", "", ""},
		{[]string{"NNF_TEST_ENVIRONMENT=1"}, "mount.mode", "mock", "", ""},
		{[]string{"NNF_TEST_ENVIRONMENT="}, "mount.mode", "mock", "", ""},
		{[]string{"ENVIRONMENT=kind", "NNF_TEST_ENVIRONMENT="}, "mount.mode", "mock", "", ""},
		{[]string{"MOCK_FILE_SYSTEM_PATH=/m"}, "mount.mock_path", "/m", "", ""},

		{[]string{"RUNTIME_DIRECTORY=/run/x"}, "daemon.runtime_directory", "/run/x", "", ""},
		{[]string{"RUNTIME_DIRECTORY=/run/x:/run/y"}, "daemon.runtime_directory", "/run/x", "", ""},
		{[]string{"STATE_DIRECTORY=/var/lib/x:/y"}, "daemon.state_directory", "/var/lib/x", "", ""},
		{[]string{"RUNTIME_DIRECTORY=x"}, "", nil, "", `"x" is not accepted: the path must be absolute`},

		{[]string{"GOMEMLIMIT=30MiB"}, "runtime.gomemlimit", int64(30 << 20), "", ""},
		{[]string{"GOMEMLIMIT=off"}, "runtime.gomemlimit", int64(math.MaxInt64), "", ""},
		{[]string{"GOGC=off"}, "runtime.gogc", -1, "", ""},
		{[]string{"GOGC=50"}, "runtime.gogc", 50, "", ""},
		{[]string{"GOGC=lots"}, "runtime.gogc", 100, "environment GOGC is ignored: runtime.gogc: \"lots\" is not an integer", ""},
		{[]string{"GOMAXPROCS=2"}, "runtime.gomaxprocs", 2, "", ""},

		{[]string{"RABBIT_NODE="}, "mount.mode", "real", "environment RABBIT_NODE: ignored, because clientmountd is for compute nodes", ""},
		{[]string{"=C:", "nothing", "NODE_NAME=a=b"}, "", nil, "", `"a=b" is not a valid namespace name`},
		{[]string{"NODE_NAME=" + strings.Repeat("n", 64)}, "", nil, "", "is not a valid namespace name"},
		{[]string{"NODE_NAME=-n"}, "", nil, "", "is not a valid namespace name"},
	} {
		_, r, err := loadIn(t, t.TempDir(), test.environ, nil)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v, want %q", test.environ, err, test.err)
			}
			continue
		}
		v, _ := r.Lookup(test.key)
		if err != nil || v.Value != test.want {
			t.Errorf("%q: %s is %v, %v, want %v", test.environ, test.key, v.Value, err, test.want)
		}
		if (test.warning != "") != (len(r.Warnings) == 1) || test.warning != "" && !strings.Contains(r.Warnings[0], test.warning) {
			t.Errorf("%q: warnings %q, want %q", test.environ, r.Warnings, test.warning)
		}
	}
}

// Invalid values of NNF_MAPPER_WAIT_TIMEOUT are ignored, with a warning per setting.
func TestMapperWaitInvalid(t *testing.T) {
	for _, text := range []string{"0", "-1", "soon", "10s", "99999999999999999999", "9999999"} {
		c, r, err := loadIn(t, t.TempDir(), []string{"NNF_MAPPER_WAIT_TIMEOUT=" + text}, nil)
		if err != nil || c.Controller.Limits.VGWait != time.Second || c.Controller.Limits.DeviceWait != 10*time.Second || len(r.Warnings) != 2 {
			t.Errorf("%s: %v, %v, %q, %v", text, c.Controller.Limits.VGWait, c.Controller.Limits.DeviceWait, r.Warnings, err)
		}
	}
}

func TestReload(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "log.level = \"info\"\nnode.name = \"a\"\nmount.roots = [\"/a\"]\n"})
	file := filepath.Join(dir, "config.toml")
	src := config.Sources{Args: []string{"--config", file, "--hook-timeout=7m"}}
	first := &clientmount.Configuration{}
	old, _, err := config.Load(first.Table(), src)
	if err != nil {
		t.Fatal(err)
	}
	before := *first

	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// The values are unchanged, the lines are not.
	rewrite("\n\nlog.level = \"info\"\nnode.name = \"a\"\nmount.roots = [\"/a\"]\n")
	c := &clientmount.Configuration{}
	r, changed, ignored, err := config.Reload(old, c.Table(), src)
	if err != nil || len(changed)+len(ignored) > 0 || !reflect.DeepEqual(*c, before) {
		t.Errorf("unchanged: %q, %q, %v, %+v", changed, ignored, err, *c)
	}
	if v, _ := r.Lookup("log.level"); v.Origin.Line != 3 {
		t.Errorf("line %d, want 3", v.Origin.Line)
	}

	// Some settings reload, some need a restart, and a flag overrides the file.
	rewrite("log.level = \"debug\"\nnode.name = \"b\"\nmount.roots = [\"/b\"]\nmount.command_timeout = \"5s\"\nmount.hook_timeout = \"1m\"\n")
	c = &clientmount.Configuration{}
	r, changed, ignored, err = config.Reload(old, c.Table(), src)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"mount.command_timeout", "log.level"}; !slices.Equal(changed, want) {
		t.Errorf("changed %q, want %q", changed, want)
	}
	if want := []string{"node.name", "mount.roots"}; !slices.Equal(ignored, want) {
		t.Errorf("ignored %q, want %q", ignored, want)
	}
	if c.Log.Level.Level() != slog.LevelDebug || c.Controller.Limits.Command != 5*time.Second || c.Controller.Limits.Hook != 7*time.Minute ||
		c.Node != "a" || !slices.Equal(c.Controller.Plan.Roots, []string{"/a"}) {
		t.Errorf("after reload %+v", *c)
	}
	if v, _ := r.Lookup("node.name"); v.Value != "a" || v.Origin.String() != file+":2" {
		t.Errorf("node.name is %v of %s", v.Value, v.Origin)
	}
	if !reflect.DeepEqual(*first, before) {
		t.Error("the structure in use has changed")
	}

	// The next reload returns the ignored keys again.
	if _, _, again, err := config.Reload(r, new(clientmount.Configuration).Table(), src); err != nil || !slices.Equal(again, ignored) {
		t.Errorf("second reload ignores %q, %v", again, err)
	}
}

func TestReloadOfAnInvalidFile(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "log.level = \"warn\"\n"})
	file := filepath.Join(dir, "config.toml")
	src := config.Sources{Args: []string{"--config", file}}
	old, _, err := config.Load(new(clientmount.Configuration).Table(), src)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("log.level = \"debug\"\nlog.colour = true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, untouched := &clientmount.Configuration{}, &clientmount.Configuration{}
	untouched.Table()
	r, changed, ignored, err := config.Reload(old, c.Table(), src)
	if err == nil || !strings.Contains(err.Error(), `config.toml:2: unknown key "log.colour"`) {
		t.Errorf("error %v", err)
	}
	if !reflect.DeepEqual(r, old) || changed != nil || ignored != nil || !reflect.DeepEqual(c, untouched) {
		t.Errorf("something changed: %q, %q, %+v", changed, ignored, *c)
	}
}
