package config

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write golden files and etc/ instead of comparing")

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

// write puts files below a new directory and returns it. A name with a slash
// makes the directories.
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

// loadIn loads for clientmountd from dir/config.toml and dir/config.d.
func loadIn(t *testing.T, dir string, environ, args []string) (*Clientmountd, Result, error) {
	t.Helper()
	c := &Clientmountd{}
	r, _, err := Load(ClientmountdTable(c), Sources{File: filepath.Join(dir, "config.toml"), Environ: environ, Args: args})
	return c, r, err
}

// The table itself: a mistake in it must not wait for an administrator to meet
// it.
func TestTableIsConsistent(t *testing.T) {
	for _, table := range []*Table{ClientmountdTable(&Clientmountd{}), NnfdmTable(&Nnfdm{})} {
		t.Run(table.Program, func(t *testing.T) { consistent(t, table) })
	}
}

func consistent(t *testing.T, table *Table) {
	keyForm := regexp.MustCompile(`^([a-z]+\.)?[a-z][a-z0-9_]*$`)
	flagForm := regexp.MustCompile(`^[a-z][a-z-]+$`) // a single letter would hide a Go-style flag
	keys, fields := map[string]bool{"version": true}, map[any]string{}
	flags := map[string]bool{configFlag: true, "help": true}

	addFlag := func(flag string) {
		if !flagForm.MatchString(flag) || flags[flag] {
			t.Errorf("flag %q is malformed or twice", flag)
		}
		flags[flag] = true
	}
	for i := range table.Settings {
		s := &table.Settings[i]
		if !keyForm.MatchString(s.Key) || keys[s.Key] {
			t.Errorf("key %q is malformed or twice", s.Key)
		}
		keys[s.Key] = true
		if !slices.ContainsFunc(table.Sections, func(x Section) bool { return x.Name == s.section() }) {
			t.Errorf("%s is in no section", s.Key)
		}
		if s.Flag != "" {
			addFlag(s.Flag)
		}
		for _, sw := range s.Switches {
			addFlag(sw.Flag)
			if _, err := s.parse(sw.Value); err != nil {
				t.Errorf("--%s: %v", sw.Flag, err)
			}
		}
		if !strings.HasSuffix(s.Help, ".") || strings.Contains(s.Help, "\n") {
			t.Errorf("%s: help %q", s.Key, s.Help)
		}
		if (s.Kind == Enum) != (len(s.Values) > 0) {
			t.Errorf("%s: kind and values do not fit", s.Key)
		}
		if s.Min != "" || s.Max != "" {
			if !slices.Contains([]Kind{Int, Duration, Size}, s.Kind) {
				t.Errorf("%s: a range without numbers", s.Key)
			}
			for _, bound := range []string{s.Min, s.Max} {
				if _, err := s.convert(bound); bound != "" && err != nil {
					t.Errorf("%s: bound %s: %v", s.Key, bound, err)
				}
			}
		}
		if twin, twice := fields[s.Field]; twice || s.Field == nil {
			t.Errorf("%s has no field of its own (%s)", s.Key, twin)
		}
		fields[s.Field] = s.Key
		v, err := s.parse(s.Default)
		if err != nil {
			t.Errorf("%s: default: %v", s.Key, err)
			continue
		}
		if err := s.fill(v); err != nil {
			t.Error(err)
		}
		// The literal of the default must be its own inverse through the file.
		line := s.Key + " = " + s.literal(v)
		if values, problems := parseFile(table, "f", []byte(line)); len(problems) > 0 || len(values) != 1 || s.literal(values[0].Value) != s.literal(v) {
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
		t.Error("lookup finds what it should not, or not what it should")
	}
}

// Which settings take effect without a restart is a promise of the manual.
func TestWhatReloads(t *testing.T) {
	var got []string
	for _, s := range ClientmountdTable(&Clientmountd{}).Settings {
		if s.Reload {
			got = append(got, s.Key)
		}
	}
	want := []string{
		"mount.command_timeout", "mount.hook_timeout", "mount.vg_wait", "mount.device_wait", "mount.device_retries",
		"mount.retry_max", "mount.verify_interval", "daemon.shutdown_timeout", "log.level",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFillRefusesAForeignField(t *testing.T) {
	var wrong uint8
	table := &Table{Program: "test", Settings: []Setting{{Key: "x", Kind: Int, Default: "1", Field: &wrong}}}
	if _, _, err := Load(table, Sources{File: "/dev/null"}); err == nil || !strings.Contains(err.Error(), "field of x") {
		t.Errorf("error %v", err)
	}
	table.Settings[0].Field = nil // for documentation only
	if _, _, err := Load(table, Sources{File: "/dev/null"}); err != nil {
		t.Error(err)
	}
	table.Settings[0].Default = "one"
	if _, _, err := Load(table, Sources{File: "/dev/null"}); err == nil || !strings.Contains(err.Error(), "default of x") {
		t.Errorf("error %v", err)
	}
}

// A caller that changes its list must not change the result.
func TestListsAreNotShared(t *testing.T) {
	c, r, err := loadIn(t, write(t, map[string]string{"config.toml": `mount.roots = ["/a"]`}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Mount.Roots[0] = "/changed"
	if v, _ := r.Lookup("mount.roots"); v.Value.([]string)[0] != "/a" {
		t.Error("field and result share a list")
	}
}

func TestClientmountdRules(t *testing.T) {
	for name, ok := range map[string]bool{"": true, "a": true, "rabbit-compute-2": true, "A": false, "a.b": false, "a/b": false, "..": false, "a-": false} {
		if err := namespaceName(name); (err == nil) != ok {
			t.Errorf("node %q: %v", name, err)
		}
	}
	for path, ok := range map[string]bool{"/a": true, "/a/b": true, "/": false, "": false, "a": false, "/a/": false, "/a//b": false, "/a/../b": false, "/a/.": false} {
		if err := absoluteDirectory(path); (err == nil) != ok {
			t.Errorf("path %q: %v", path, err)
		}
	}
	for d, ok := range map[time.Duration]bool{0: true, time.Second: false, time.Minute: true} {
		if err := neverOrMinute(d); (err == nil) != ok {
			t.Errorf("interval %v: %v", d, err)
		}
	}
}
