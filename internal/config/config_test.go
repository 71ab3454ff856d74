package config_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
)

var update = flag.Bool("update", false, "write golden files instead of comparing")

// golden compares got with the file, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it); got:\n%s", path, got)
	}
}

// write creates the files, including their directories, in a new directory and
// returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// at returns a table with another main file.
func at(file string, t *config.Table) *config.Table {
	t.File = file
	return t
}

// loadIn loads the settings of clientmountd from dir/config.toml and dir/config.d.
func loadIn(t *testing.T, dir string, environ, args []string) (*clientmount.Configuration, config.Result, error) {
	t.Helper()
	c := &clientmount.Configuration{}
	r, _, err := config.Load(at(filepath.Join(dir, "config.toml"), c.Table()), config.Sources{Environ: environ, Args: args})
	return c, r, err
}

// The tables of both daemons are valid.
func TestTableIsConsistent(t *testing.T) {
	for _, table := range []*config.Table{new(clientmount.Configuration).Table(), new(server.Configuration).Table()} {
		t.Run(table.Program, func(t *testing.T) { consistent(t, table) })
	}
}

func consistent(t *testing.T, table *config.Table) {
	keyForm := regexp.MustCompile(`^([a-z]+\.)?[a-z][a-z0-9_]*$`)
	flagForm := regexp.MustCompile(`^[a-z][a-z-]+$`) // a single letter would conflict with Go-style flags
	keys, fields := map[string]bool{"version": true}, map[any]string{}
	flags := map[string]bool{config.ConfigFlag: true, "help": true}

	addFlag := func(flag string) {
		if !flagForm.MatchString(flag) || flags[flag] {
			t.Errorf("flag %q is malformed or duplicate", flag)
		}
		flags[flag] = true
	}
	for i := range table.Settings {
		s := &table.Settings[i]
		if !keyForm.MatchString(s.Key) || keys[s.Key] {
			t.Errorf("key %q is malformed or duplicate", s.Key)
		}
		keys[s.Key] = true
		section, _, dotted := strings.Cut(s.Key, ".")
		if !dotted {
			section = ""
		}
		if !slices.ContainsFunc(table.Sections, func(x config.Section) bool { return x.Name == section }) {
			t.Errorf("%s has no section", s.Key)
		}
		if s.Flag != "" {
			addFlag(s.Flag)
		}
		for _, sw := range s.Switches {
			addFlag(sw.Flag)
			if _, _, err := config.Load(at(os.DevNull, table), config.Sources{Args: []string{"--" + sw.Flag}}); err != nil {
				t.Errorf("--%s: %v", sw.Flag, err)
			}
		}
		if !strings.HasSuffix(s.Help, ".") || strings.Contains(s.Help, "\n") {
			t.Errorf("%s: help %q", s.Key, s.Help)
		}
		if (s.Kind == config.Enum) != (len(s.Values) > 0) {
			t.Errorf("%s: only an enum has values", s.Key)
		}
		if (s.Min != "" || s.Max != "") && !slices.Contains([]config.Kind{config.Int, config.Duration, config.Size}, s.Kind) {
			t.Errorf("%s: only numbers have a range", s.Key)
		}
		if twin, twice := fields[s.Field]; twice || s.Field == nil {
			t.Errorf("%s does not have its own field (%s)", s.Key, twin)
		}
		fields[s.Field] = s.Key
	}
	// An invalid default, bound or field is an error or a panic.
	r, _, err := config.Load(at(os.DevNull, table), config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Values {
		// The literal of the default reads back as the same value.
		line := v.Setting.Key + " = " + v.Literal()
		if values, problems := config.ParseFile(table, "f", []byte(line)); len(problems) > 0 || len(values) != 1 || values[0].Literal() != v.Literal() {
			t.Errorf("%s does not read back: %v", line, problems)
		}
	}
	for _, old := range table.Legacy {
		addFlag(old.Flag)
		if old.Advice == "" {
			t.Errorf("--%s: no advice", old.Flag)
		}
	}
	if table.Lookup("log.level") == nil || table.Lookup("log") != nil || table.Lookup("") != nil {
		t.Error("Lookup finds a wrong key, or misses a valid one")
	}
}

// The settings that take effect without a restart are documented.
func TestReloadableSettings(t *testing.T) {
	var got []string
	for _, s := range new(clientmount.Configuration).Table().Settings {
		if s.Reload {
			got = append(got, s.Key)
		}
	}
	want := []string{
		"mount.command_timeout", "mount.hook_timeout", "mount.vg_wait", "mount.device_wait", "mount.device_retries",
		"mount.retry_max", "mount.busy", "mount.busy_grace", "mount.busy_min_uid", "mount.verify_interval", "daemon.shutdown_timeout", "log.level",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFillRefusesAWrongFieldType(t *testing.T) {
	var wrong uint8
	table := &config.Table{Program: "test", Settings: []config.Setting{{Key: "x", Kind: config.Int, Default: "1", Field: &wrong}}}
	if _, _, err := config.Load(at("/dev/null", table), config.Sources{}); err == nil || !strings.Contains(err.Error(), "field of x") {
		t.Errorf("error %v", err)
	}
	table.Settings[0].Field = nil // for documentation only
	if _, _, err := config.Load(at("/dev/null", table), config.Sources{}); err != nil {
		t.Error(err)
	}
	table.Settings[0].Default = "one"
	if _, _, err := config.Load(at("/dev/null", table), config.Sources{}); err == nil || !strings.Contains(err.Error(), "default of x") {
		t.Errorf("error %v", err)
	}
}

// A caller that changes its list must not change the result.
func TestListsAreNotShared(t *testing.T) {
	c, r, err := loadIn(t, write(t, map[string]string{"config.toml": `mount.roots = ["/a"]`}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Controller.Plan.Roots[0] = "/changed"
	if v, _ := r.Lookup("mount.roots"); v.Value.([]string)[0] != "/a" {
		t.Error("the field and the result share a slice")
	}
}

func TestChecks(t *testing.T) {
	for name, ok := range map[string]bool{"": true, "a": true, "rabbit-compute-2": true, "A": false, "a.b": false, "a/b": false, "..": false, "a-": false} {
		if err := config.NamespaceName(name); (err == nil) != ok {
			t.Errorf("node %q: %v", name, err)
		}
	}
	for path, ok := range map[string]bool{"/a": true, "/a/b": true, "/": false, "": false, "a": false, "/a/": false, "/a//b": false, "/a/../b": false, "/a/.": false} {
		if err := config.AbsolutePath(path); (err == nil) != ok {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

func loadNnfdm(t *testing.T, file string, environ, args []string) (*server.Configuration, config.Result, error) {
	t.Helper()
	c := &server.Configuration{}
	r, rest, err := config.Load(at(file, c.Table()), config.Sources{Environ: environ, Args: args})
	if len(rest) > 0 {
		t.Errorf("rest %q", rest)
	}
	return c, r, err
}

func TestNnfdmFiles(t *testing.T) {
	text := config.DefaultFile(new(server.Configuration).Table())
	var b bytes.Buffer
	if err := config.Usage(&b, new(server.Configuration).Table()); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/nnf-dm.usage", b.String())
	for _, line := range strings.Split(text+b.String(), "\n") {
		if utf8.RuneCountInString(line) > config.Columns {
			t.Errorf("longer than %d: %s", config.Columns, line)
		}
	}
	// With all settings uncommented, it gives the defaults.
	want, _, err := loadNnfdm(t, "/dev/null", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"config.toml": regexp.MustCompile(`(?m)^#(\w+ = )`).ReplaceAllString(text, "$1")})
	got, _, err := loadNnfdm(t, dir+"/config.toml", nil, nil)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v\n%v", got, want, err)
	}
}

// The flags and environment variables of earlier daemons.
func TestNnfdmContract(t *testing.T) {
	c, _, err := loadNnfdm(t, "/dev/null", []string{
		"KUBERNETES_SERVICE_HOST=10.0.0.5", "KUBERNETES_SERVICE_PORT=6443", "NODE_NAME=compute-1", "NNF_NODE_NAME=rabbit-1",
		"NNF_DATA_MOVEMENT_SERVICE_TOKEN_FILE=/t", "NNF_DATA_MOVEMENT_SERVICE_CERT_FILE=/c",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kubernetes.Host != "10.0.0.5" || c.Kubernetes.Port != "6443" || c.Node != "compute-1" || c.Service.Rabbit != "rabbit-1" ||
		c.Kubernetes.TokenFile != "/t" || c.Kubernetes.CertFile != "/c" {
		t.Errorf("%+v", c)
	}
	if c.Socket.Path != "/var/run/nnf-dm.sock" || c.Service.SystemConfiguration != "default" || c.Simulated || c.Kubernetes.QPS != 50 || c.Kubernetes.Burst != 100 ||
		c.IdleTimeout != 5*time.Minute {
		t.Errorf("defaults %+v", c)
	}
	c, _, err = loadNnfdm(t, "/dev/null", nil, []string{
		"-socket", "/tmp/s", "--kubernetes-service-host=h", "--kubernetes-service-port", "1", "--node-name=n", "--nnf-node-name", "r",
		"--service-token-file=/a", "--service-cert-file=/b", "--sys-config=other", "--simulated", "--kubernetes-qps", "7", "--kubernetes-burst=8", "--kubeconfig=/k",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Socket.Path != "/tmp/s" || c.Kubernetes.Host != "h" || c.Kubernetes.Port != "1" || c.Node != "n" || c.Service.Rabbit != "r" ||
		c.Kubernetes.TokenFile != "/a" || c.Kubernetes.CertFile != "/b" || c.Service.SystemConfiguration != "other" || !c.Simulated ||
		c.Kubernetes.QPS != 7 || c.Kubernetes.Burst != 8 || c.Kubernetes.Kubeconfig != "/k" {
		t.Errorf("%+v", c)
	}
}

func TestPermissions(t *testing.T) {
	for text, want := range map[string]uint32{"0666": 0o666, "0660": 0o660, "0600": 0o600, "666": 0, "0888": 0, "rw": 0, "": 0, "0066": 0, "01777": 0} {
		var c server.Configuration
		_, _, err := config.Load(at(write(t, map[string]string{"config.toml": "socket.mode = \"" + text + "\"\n"})+"/config.toml", c.Table()), config.Sources{})
		got := c.Socket.Mode
		if uint32(got) != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %o %v", text, got, err)
		}
	}
	_, _, err := loadNnfdm(t, write(t, map[string]string{"config.toml": "socket.mode = \"rwx\"\n"})+"/config.toml", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "config.toml:1: socket.mode") {
		t.Errorf("error %v", err)
	}
}

func TestNnfdmReloads(t *testing.T) {
	fixed := []string{"kubernetes.", "node.", "socket.", "runtime.", "strict_credentials", "log.format", "daemon.simulated", "daemon.state_directory", "limits.message_size", "limits.memory", "limits.handshake_time"}
	for _, s := range new(server.Configuration).Table().Settings {
		want := !slices.ContainsFunc(fixed, func(p string) bool { return strings.HasPrefix(s.Key, p) })
		if s.Reload != want {
			t.Errorf("%s reloads: %v", s.Key, s.Reload)
		}
	}
}

// A line of the synopsis may describe several commands.
func TestEach(t *testing.T) {
	var got []string
	for _, line := range []config.Command{{Flags: true}, {Words: "config check", Flags: true}, {Words: "a|b|c"}, {Words: "config d|e"}, {Words: "a", Option: "-o x"}} {
		for _, c := range line.Each() {
			got = append(got, c.Usage("x"))
		}
	}
	if want := []string{"x [flags]", "x config check [flags]", "x a", "x b", "x c", "x config d", "x config e", "x a -o x"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
