package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDefaultFileIsTheInstalledOne(t *testing.T) {
	golden(t, "../../etc/clientmountd/config.toml", DefaultFile(ClientmountdTable(&Clientmountd{})))
}

// As installed, and with every setting uncommented, the file yields the
// defaults and nothing else.
func TestDefaultFileYieldsDefaults(t *testing.T) {
	table := ClientmountdTable(&Clientmountd{})
	text := DefaultFile(table)
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
			if fromFile := v.Origin.Layer == File; fromFile != (name == "uncommented") {
				t.Errorf("%s: origin of %s is %s", name, v.Setting.Key, v.Origin)
			}
		}
	}
}

func TestUsageGolden(t *testing.T) {
	var b bytes.Buffer
	if err := Usage(&b, ClientmountdTable(&Clientmountd{})); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/clientmountd.usage", b.String())
}

// Help and default file fit a terminal, and do not leave hidden things out by
// accident or in by mistake.
func TestWidthAndHidden(t *testing.T) {
	table := ClientmountdTable(&Clientmountd{})
	table.Settings = append(table.Settings, Setting{Key: "log.hidden", Flag: "hidden", Hidden: true, Help: "Not to be seen."})
	var b bytes.Buffer
	if err := Usage(&b, table); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"usage": b.String(), "default file": DefaultFile(table)} {
		for i, line := range strings.Split(text, "\n") {
			if utf8.RuneCountInString(line) > columns {
				t.Errorf("%s, line %d is longer than %d: %s", name, i+1, columns, line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("%s, line %d ends in a blank: %q", name, i+1, line)
			}
		}
		if strings.Contains(text, "idden") || strings.Contains(text, "zap") {
			t.Errorf("%s shows what is hidden", name)
		}
		for i := range table.Settings {
			s := &table.Settings[i]
			if s.Flag != "" && !s.Hidden && !strings.Contains(text, "--"+s.Flag) {
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
	table := ClientmountdTable(&Clientmountd{})
	r, _, err := Load(table, Sources{
		File: filepath.Join(dir, "config.toml"), Environ: []string{"NODE_NAME=compute-1", "GOGC=off"}, Args: []string{"--orphans=unmount"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Dump(&b, table, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/dump.toml", strings.ReplaceAll(b.String(), dir, "/etc/clientmountd"))

	// What was dumped is a file that says the same again.
	again, _, err := loadIn(t, write(t, map[string]string{"config.toml": b.String()}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := &Clientmountd{}
	if _, _, err := Load(ClientmountdTable(first), Sources{
		File: filepath.Join(dir, "config.toml"), Environ: []string{"NODE_NAME=compute-1", "GOGC=off"}, Args: []string{"--orphans=unmount"},
	}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, again) {
		t.Errorf("dumped %+v\nread   %+v", first, again)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	var secret string
	table := &Table{
		Program: "test", Sections: []Section{{"", ""}},
		Settings: []Setting{{Key: "password", Flag: "password", Env: []Env{{Name: "PW"}}, Kind: Enum, Values: []string{"", "hunter2"}, Secret: true, Field: &secret}},
	}
	dir := write(t, map[string]string{"good.toml": `password = "hunter2"`, "bad.toml": `password = "swordfish"`})
	r, _, err := Load(table, Sources{File: filepath.Join(dir, "good.toml")})
	if err != nil || secret != "hunter2" {
		t.Fatalf("%q, %v", secret, err)
	}
	var b bytes.Buffer
	if err := Dump(&b, table, r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "hunter2") || !strings.Contains(b.String(), `password = "(not shown)"`) {
		t.Errorf("dump: %s", b.String())
	}
	for name, src := range map[string]Sources{
		"file":        {File: filepath.Join(dir, "bad.toml")},
		"environment": {File: os.DevNull, Environ: []string{"PW=swordfish"}},
		"flag":        {File: os.DevNull, Args: []string{"--password", "swordfish"}},
	} {
		if _, _, err := Load(table, src); err == nil || strings.Contains(err.Error(), "swordfish") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheck(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "version = 1\n", "config.d/a.toml": "", "bad/config.toml": "x = 1\n"})
	table := ClientmountdTable(&Clientmountd{})
	for name, test := range map[string]struct {
		src       Sources
		want, err string
	}{
		"good":    {Sources{File: dir + "/config.toml"}, dir + "/config.toml: ok\n" + dir + "/config.d/a.toml: ok\n", ""},
		"warning": {Sources{File: os.DevNull, Args: []string{"--zap-devel"}}, "warning: flag --zap-devel has no effect any more: use --log-format\n" + os.DevNull + ": ok\n", ""},
		"nothing": {Sources{File: dir + "/none/config.toml"}, "no file was read, all values are defaults, of the environment or of flags\n", ""},
		"bad":     {Sources{File: dir + "/bad/config.toml"}, "", dir + `/bad/config.toml:1: unknown key "x"`},
		"word":    {Sources{File: os.DevNull, Args: []string{"now"}}, "", `unexpected argument "now"`},
	} {
		var b bytes.Buffer
		err := Check(&b, table, test.src)
		if b.String() != test.want {
			t.Errorf("%s: said %q, want %q", name, b.String(), test.want)
		}
		if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("x", 100)
	for text, want := range map[string]string{
		"":                          "",
		"one":                       "# one\n",
		"one  two":                  "# one two\n",
		strings.Repeat("word ", 16): "# " + strings.Repeat("word ", 14) + "word\n# word\n",
		"a " + long + " b":          "# a\n# " + long + "\n# b\n",
	} {
		if got := wrap("# ", text); got != want {
			t.Errorf("wrap(%q) = %q, want %q", text, got, want)
		}
	}
}
