package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/systemd/fakesystemd"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// thing is a program whose daemon records that it was started and returns immediately.
type thing struct {
	*Program
	file string // its configuration file
	runs int
	got  int   // level at the start
	err  error // error of Start
}

// thingSettings is its configuration, with one setting of its own. Level 4 is invalid.
type thingSettings struct {
	Settings
	thing *thing
	Level int
}

func (c *thingSettings) Table() *config.Table {
	return c.Settings.Table(config.Table{
		Program: "thing", Summary: "thing does things.", File: c.thing.file,
		Sections: []config.Section{{Name: "node", Help: "This node."}, {Name: "a", Help: "All."}},
		Settings: []config.Setting{{Key: "a.level", Flag: "level", Env: []config.Env{{Name: "THING_LEVEL"}}, Kind: config.Int, Default: "3", Min: "0", Max: "9", Field: &c.Level, Help: "How much."}},
	}, Defaults{TokenEnv: "THING_TOKEN", CertEnv: "THING_CERT", QPS: "1", Burst: "1", MemLimit: "off", Status: "nothing"})
}

func (c *thingSettings) Verify() error {
	if c.Level == 4 {
		return errors.New("four is no level for a thing")
	}
	return nil
}

func (c *thingSettings) Start(*Process) (Service, error) {
	c.Log.Level.Set(slog.LevelError)
	c.thing.runs++
	c.thing.got = c.Level
	return c.thing, c.thing.err
}

func (p *thing) Run(context.Context) error      { return nil }
func (p *thing) Probe(context.Context) error    { return nil }
func (p *thing) Reload(Configuration)           {}
func (p *thing) ShutdownTimeout() time.Duration { return 0 }
func (p *thing) Left() string                   { return "" }

func newThing(t *testing.T) *thing {
	t.Helper()
	// Keep GOMAXPROCS for the other tests.
	t.Setenv("GOMAXPROCS", strconv.Itoa(runtime.GOMAXPROCS(0)))
	p := &thing{file: filepath.Join(t.TempDir(), "config.toml")}
	p.Program = &Program{Name: "thing", Configuration: func() Configuration { return &thingSettings{thing: p} }}
	return p
}

func (p *thing) call(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = p.Program.Run(context.Background(), args, []string{"THING_LEVEL=5"}, &out, &err)
	return code, out.String(), err.String()
}

// For each command line: the exit code, the output, and whether the daemon runs.
func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args   string
		code   int
		runs   int
		stdout string // substring; "": no output
		stderr string
	}{
		{"", 0, 1, "", ""},
		{"--level=7", 0, 1, "", ""},
		{"-level 7", 0, 1, "", ""},
		{"--", 0, 1, "", ""},
		{"version", 0, 0, "Version " + version.Version + "\n", ""},
		{"version --level=nonsense", 0, 0, "Version ", ""},
		{"help", 0, 0, "--level", ""},
		{"--help", 0, 0, "--level", ""},
		{"-h", 0, 0, "Usage:", ""},
		{"--level=7 --help", 0, 0, "--level", ""},
		{"config help", 0, 0, "--level", ""},
		{"config --help", 0, 0, "--level", ""},
		{"config -h", 0, 0, "--level", ""},
		{"config dump --help", 0, 0, "--level", ""},
		{"config default", 0, 0, "#level = 3", ""},
		{"config check", 0, 0, "no configuration file found", ""},
		{"config dump --level=7", 0, 0, "# flag --level", ""},
		{"config dump", 0, 0, "# environment THING_LEVEL", ""},

		{"nonsense", 2, 0, "", "thing: error: unknown command \"nonsense\"\nthing: hint: see thing --help\n"},
		{"stauts", 2, 0, "", "thing: error: unknown command \"stauts\"\nthing: hint: did you mean \"status\"? see thing --help\n"},
		{"confg", 2, 0, "", `did you mean "config"?`},
		{"inst", 2, 0, "", `did you mean "install"?`},
		{"Version", 2, 0, "", "unknown command"},
		{"daemon --level=7", 2, 0, "", "unknown command"},
		{"config", 2, 0, "", "thing: error: config requires a sub-command: check, dump or default\n"},
		{"config list", 2, 0, "", "unknown command \"config list\"\nthing: hint: use config check, config dump or config default; see thing --help\n"},
		{"config chekc", 2, 0, "", `did you mean "config check"?`},
		{"config default --level=1", 2, 0, "", "config default takes no arguments"},
		{"config check now", 2, 0, "", `unexpected argument "now"`},
		{"config dump now", 2, 0, "", `unexpected argument "now"`},
		{"config dump --level=70", 2, 0, "", "out of range"},
		{"--level=7 now", 2, 0, "", `unexpected argument "now"`},
		{"--lvel=7", 2, 0, "", "unknown flag --lvel\nthing: hint: did you mean --level? see thing --help\n"},

		{"start now", 2, 0, "", `unexpected argument "now"`},
		{"status --level=7", 2, 0, "", "status takes no arguments"},
		{"install --lvel=7", 2, 0, "", "unknown flag --lvel\nthing: hint: did you mean --level? see thing --help\n"},
		{"install --level=70", 2, 0, "", "out of range"},
		{"install now", 2, 0, "", `unexpected argument "now"`},
		{"install -h", 0, 0, "--level", ""},
		{"remove --help", 0, 0, "--level", ""},
	} {
		p := newThing(t)
		code, stdout, stderr := p.call(strings.Fields(tt.args)...)
		if code != tt.code || p.runs != tt.runs || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%q: %d, %d runs\n%s%s", tt.args, code, p.runs, stdout, stderr)
		}
		if tt.stdout == "" && stdout != "" || tt.stderr == "" && stderr != "" {
			t.Errorf("%q: unexpected output:\n%s\n%s", tt.args, stdout, stderr)
		}
		if code == 2 && (strings.Count(stderr, "\n") != 2 || !strings.HasPrefix(stderr, "thing: error: ") || !strings.HasSuffix(stderr, "see thing --help\n")) {
			t.Errorf("%q: %q is not an error and a hint", tt.args, stderr)
		}
	}
}

// Flags and environment reach the daemon.
func TestLoad(t *testing.T) {
	p := newThing(t)
	for args, want := range map[string]int{"": 5, "--level=7": 7, "-level 8": 8} {
		if code, _, stderr := p.call(strings.Fields(args)...); code != 0 || p.got != want {
			t.Errorf("%q: level %d, want %d: %d %s", args, p.got, want, code, stderr)
		}
	}
}

// Each line of an error is printed with the name of the program. Usage errors have
// their own exit code.
func TestResult(t *testing.T) {
	p := newThing(t)
	for _, tt := range []struct {
		err    error
		code   int
		stderr string
	}{
		{nil, 0, ""},
		{errors.New("no socket"), 1, "thing: error: no socket\n"},
		{hint.Add(errors.New("no socket"), "make one"), 1, "thing: error: no socket\nthing: hint: make one\n"},
		{errors.New("one\ntwo"), 1, "thing: error: one\nthing: error: two\n"},
		{errors.Join(errors.New("one"), errors.New("two")), 1, "thing: error: one\nthing: error: two\n"},
		{usage.Errorf("wrong word"), 2, "thing: error: wrong word\nthing: hint: see thing --help\n"},
	} {
		p.err = tt.err
		if code, stdout, stderr := p.call(); code != tt.code || !strings.HasSuffix(stderr, tt.stderr) || stdout != "" {
			t.Errorf("%v: %d %q", tt.err, code, stderr)
		}
	}
}

// An error at startup has the priority err in the journal, on each line.
func TestErrorsInTheJournal(t *testing.T) {
	p := newThing(t)
	p.err = errors.New("first\nsecond")
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	environ := []string{"JOURNAL_STREAM=" + fmt.Sprintf("%d:%d", st.Dev, st.Ino)}
	p.Program.Run(t.Context(), nil, environ, io.Discard, file)
	p.Program.Run(t.Context(), []string{"nonsense"}, environ, io.Discard, file)
	const want = "<3>thing: error: first\n<3>thing: error: second\n<3>thing: error: unknown command \"nonsense\"\n<3>thing: hint: see thing --help\n"
	if have, err := os.ReadFile(file.Name()); string(have) != want || err != nil {
		t.Errorf("%q, %v", have, err)
	}
}

// Long words are shortened and control characters are escaped in messages.
func TestHostileWords(t *testing.T) {
	p := newThing(t)
	for _, word := range []string{strings.Repeat("x", 10_000), "a\x1b[31mb\nc"} {
		for _, args := range [][]string{{word}, {"config", word}, {"config", "dump", word}} {
			code, _, stderr := p.call(args...)
			if code != 2 || len(stderr) > 300 || strings.Count(stderr, "\n") != 2 || strings.Contains(stderr, "\x1b") {
				t.Errorf("%.20q: %d %.500q", args, code, stderr)
			}
		}
	}
}

// An invalid file gives one error per line, and is not a usage error.
func TestBadFile(t *testing.T) {
	p := newThing(t)
	file := p.file
	if err := os.WriteFile(file, []byte("[a]\nlevel = 99\nlvel = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"config", "check"}, {"config", "dump"}} {
		code, stdout, stderr := p.call(args...)
		if code != 1 || stdout != "" || strings.Count(stderr, "thing: error: "+file+":") != 2 {
			t.Errorf("%q: %d %s%s", args, code, stdout, stderr)
		}
	}
	if code, _, _ := p.call("version"); code != 0 {
		t.Error("the version depends on the file")
	}
	if code, _, _ := p.call("config", "default"); code != 0 {
		t.Error("the default file depends on the file")
	}
}

// config check calls Verify; config dump does not.
func TestVerify(t *testing.T) {
	p := newThing(t)
	for args, want := range map[string]int{"config check": 0, "config check --level=4": 1, "config check --level=44": 2, "config check now": 2, "config dump --level=4": 0} {
		code, stdout, stderr := p.call(strings.Fields(args)...)
		if code != want || code != 0 && (stdout != "" || strings.Count(stderr, "error: ") != 1) {
			t.Errorf("%q: %d %s%s", args, code, stdout, stderr)
		}
	}
}

// The commands fail if their output cannot be written. config check is an exception:
// its result is the exit code.
func TestWriteFails(t *testing.T) {
	p := newThing(t)
	for _, args := range [][]string{{"version"}, {"help"}, {"config", "default"}, {"config", "dump"}} {
		read, write := io.Pipe()
		read.Close()
		var stderr bytes.Buffer
		if code := p.Program.Run(context.Background(), args, nil, write, &stderr); code != 1 {
			t.Errorf("%q: %d %s", args, code, stderr.String())
		}
	}
}

// install accepts the flags of the daemon in any form, and does not read the
// configuration file.
func TestVerbs(t *testing.T) {
	for args, want := range map[string]string{
		"install":                              "ExecStart=/bin/thing\n",
		"install --level=7":                    "ExecStart=/bin/thing --level=7\n",
		"install -level 7 --config /none/such": "ExecStart=/bin/thing -level 7 --config /none/such\n",
	} {
		p := newThing(t)
		root := t.TempDir()
		p.Service = systemd.Service{
			Description: "The Thing", Units: []systemd.Unit{{Name: "thing.service", Text: "[Service]\nExecStart=/usr/bin/thing\n"}},
			Machine: systemd.Machine{
				Root: root, Run: fakesystemd.Manager{Root: root}.Run, UID: func() int { return 0 },
				Program: func(name string) (string, error) { return "/bin/" + name, nil },
			},
		}
		if err := os.WriteFile(p.file, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := p.call(strings.Fields(args)...)
		if code != 0 || p.runs != 0 || stderr != "" || !strings.HasPrefix(stdout, "Install The Thing:\t\t\t\t\t[  OK  ]\n") {
			t.Errorf("%q: %d, %d runs\n%s%s", args, code, p.runs, stdout, stderr)
		}
		if text, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/thing.service")); err != nil || !strings.HasSuffix(string(text), want) {
			t.Errorf("%q: %v\n%s", args, err, text)
		}
		if code, _, stderr := p.call("status"); code != 1 || !strings.Contains(stderr, "systemd is not running") {
			t.Errorf("status: %d %s", code, stderr)
		}
	}
}

// A Refusal is logged as a record and not printed.
func TestRefusal(t *testing.T) {
	p := newThing(t)
	event := Event{ID: "00000000000000000000000000000001", Name: "no-place"}
	p.err = &Refusal{Event: event, Text: "the thing has no space", Hint: "free some"}
	code, stdout, stderr := p.call("--log-format=text")
	if code != ExitFailure || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, `level=ERROR msg="the thing has no space" hint="free some" event=no-place`) {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
}
