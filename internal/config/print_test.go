package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
)

// The default file gives the defaults, as installed and with all settings uncommented.
func TestDefaultFileYieldsDefaults(t *testing.T) {
	table := new(clientmount.Configuration).Table()
	text := config.DefaultFile(table)
	uncommented := regexp.MustCompile(`(?m)^#(\w+ = )`).ReplaceAllString(text, "$1")
	if n := strings.Count(uncommented, "\n") - strings.Count(text, "\n"); n != 0 {
		t.Fatalf("uncommenting changed the number of lines by %d", n)
	}
	want, _, err := loadIn(t, t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"installed": text, "uncommented": uncommented} {
		got, r, err := loadIn(t, write(t, map[string]string{"config.toml": text}), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		for _, v := range r.Values {
			if fromFile := v.Origin.Layer == config.File; fromFile != (name == "uncommented") {
				t.Errorf("%s: origin of %s is %s", name, v.Setting.Key, v.Origin)
			}
		}
	}
}

func TestUsageGolden(t *testing.T) {
	var b bytes.Buffer
	if err := config.Usage(&b, new(clientmount.Configuration).Table()); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/clientmountd.usage", b.String())
}

// The help and the default file have at most 80 columns and contain all flags except
// those of earlier daemons.
func TestWidth(t *testing.T) {
	table := new(clientmount.Configuration).Table()
	var b bytes.Buffer
	if err := config.Usage(&b, table); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"usage": b.String(), "default file": config.DefaultFile(table)} {
		for i, line := range strings.Split(text, "\n") {
			if utf8.RuneCountInString(line) > config.Columns {
				t.Errorf("%s, line %d is longer than %d: %s", name, i+1, config.Columns, line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("%s, line %d ends in a space: %q", name, i+1, line)
			}
		}
		if strings.Contains(text, "zap") {
			t.Errorf("%s shows a flag of earlier daemons", name)
		}
		for i := range table.Settings {
			s := &table.Settings[i]
			if s.Flag != "" && !strings.Contains(text, "--"+s.Flag) {
				t.Errorf("%s does not show --%s", name, s.Flag)
			}
		}
	}
}

func TestDump(t *testing.T) {
	dir := write(t, map[string]string{
		"config.toml":           "[mount]\nroots = [\"/mnt/nnf\", \"/l/nnf\"]\nmock_path = \"/l/tab\\\\x\"\n",
		"config.d/50-site.toml": "version = 1\n\nmount.hook_timeout = \"1h30m\"\n",
	})
	table := new(clientmount.Configuration).Table()
	r, _, err := config.Load(at(filepath.Join(dir, "config.toml"), table), config.Sources{Environ: []string{"NODE_NAME=compute-1", "GOGC=off"}, Args: []string{"--orphans=unmount"}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := config.Dump(&b, table, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/dump.toml", strings.ReplaceAll(b.String(), dir, "/etc/clientmountd"))

	// The dump is a file with the same values.
	again, _, err := loadIn(t, write(t, map[string]string{"config.toml": b.String()}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := &clientmount.Configuration{}
	if _, _, err := config.Load(at(filepath.Join(dir, "config.toml"), first.Table()), config.Sources{Environ: []string{"NODE_NAME=compute-1", "GOGC=off"}, Args: []string{"--orphans=unmount"}}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, again) {
		t.Errorf("dumped %+v\nread   %+v", first, again)
	}
}

func TestCheck(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "version = 1\n", "config.d/a.toml": "", "bad/config.toml": "x = 1\n"})
	table := new(clientmount.Configuration).Table()
	for name, test := range map[string]struct {
		file      string
		args      []string
		want, err string
	}{
		"good":    {dir + "/config.toml", nil, dir + "/config.toml: ok\n" + dir + "/config.d/a.toml: ok\n", ""},
		"warning": {os.DevNull, []string{"--zap-devel"}, "warning: flag --zap-devel no longer has any effect: use --log-format\n" + os.DevNull + ": ok\n", ""},
		"nothing": {dir + "/none/config.toml", nil, "no configuration file found; all values come from defaults, the environment or flags\n", ""},
		"bad":     {dir + "/bad/config.toml", nil, "", dir + `/bad/config.toml:1: unknown key "x"`},
		"word":    {os.DevNull, []string{"now"}, "", `unexpected argument "now"`},
	} {
		var b bytes.Buffer
		err := config.Check(&b, at(test.file, table), config.Sources{Args: test.args})
		if b.String() != test.want {
			t.Errorf("%s: output %q, want %q", name, b.String(), test.want)
		}
		if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
}
