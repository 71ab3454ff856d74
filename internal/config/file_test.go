package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
)

// Invalid files and their errors. F is replaced by the path of the file.
func TestFileErrors(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":            {"version = 1\n\n[mount]\n# hm\n\n\ncomand_timeout = \"2m\"", `F:7: unknown key "mount.comand_timeout", did you mean "mount.command_timeout"?`},
		"unknown key, dotted":    {"\nmount.comand_timeout = 1", `F:2: unknown key "mount.comand_timeout", did you mean "mount.command_timeout"?`},
		"unknown key, inline":    {"mount = { orphan = \"report\" }", `F:1: unknown key "mount.orphan", did you mean "mount.orphans"?`},
		"unknown key, far":       {"colour = 1", `F:1: unknown key "colour"`},
		"wrong section":          {"[daemon]\nlevel = \"info\"", `F:2: unknown key "daemon.level", did you mean "log.level"?`},
		"quoted path is one key": {"\"mount.orphans\" = \"unmount\"", `F:1: unknown key "\"mount.orphans\"", did you mean "mount.orphans"?`},
		"empty key":              {"\"\" = 1", `F:1: unknown key ""`},
		"control characters":     {"\"a\\nb\" = 1", `F:1: unknown key "a\nb"`},
		"unknown section":        {"version = 1\n[mont]\nx = 1\ny = 2", `F:2: unknown section "mont", did you mean "mount"?`},
		"unknown deep section":   {"\n[a.b.c]\nx = 1", `F:2: unknown section "a"`},
		"section of a section":   {"[log.level.x]\ny = 1", `F:1: log.level: a table where a word is expected, accepted: "debug", "info", "warn", "error"`},
		"section as value":       {"mount = 5", `F:1: mount is an integer, accepted: a section [mount]`},
		"section as list":        {"[[mount]]", `F:1: mount is a list of tables, accepted: a section [mount]`},
		"version 2":              {"version = 2", `F:1: version = 2 is not supported by this build, accepted: 1`},
		"version as string":      {"version = \"1\"", `F:1: version is a string, accepted: 1`},
		"wrong type":             {"mount.device_retries = true", `F:1: mount.device_retries: a boolean where an integer is expected, accepted: a number without quotes`},
		"no unit":                {"mount.command_timeout = 120", `F:1: mount.command_timeout: an integer where a duration is expected, accepted: a quoted string, for example "30s", "5m" or "1h30m"`},
		"bad duration":           {"mount.command_timeout = \"2 min\"", `F:1: mount.command_timeout: "2 min" is not a duration, accepted: a number with a unit, for example "30s", "5m" or "1h30m"`},
		"out of range":           {"[kubernetes]\nwatch_timeout = \"1m\"", `F:2: kubernetes.watch_timeout: 1m is out of range, accepted: 5m to 24h`},
		"bad value":              {"log.level = \"INFO\"", `F:1: log.level: "INFO" is not a valid value, accepted: debug, info, warn, error, did you mean "info"?`},
		"bad size":               {"runtime.gomemlimit = \"20MB\"", `F:1: runtime.gomemlimit: "20MB" is not a size, accepted: bytes or a number with a unit, for example "20MiB" or "off"`},
		"bad root":               {"mount.roots = [\n  \"/mnt\",\n  \"/mnt/../etc\",\n]", `F:1: mount.roots: "/mnt/../etc" is not accepted: the path must be absolute, below /, and without "..", "//" or a slash at the end`},
		"no root":                {"mount.roots = []", `F:1: mount.roots: the list is empty, so nothing could be mounted, accepted: at least one directory, by default "/mnt"`},
		"root of the system":     {"mount.roots = [\"/mnt\", \"/usr/local\"]", `F:1: mount.roots: "/usr/local" is not accepted: mounting is not allowed on or below /usr`},
		"root twice":             {"mount.roots = [\"/mnt\", \"/l\", \"/mnt\"]", `F:1: mount.roots: "/mnt" is in the list twice`},
		"two options in one":     {"mount.options = [\"nosuid,nodev\"]", `F:1: mount.options: "nosuid,nodev" is not accepted: list each option as a separate entry, for example ["nosuid", "nodev"]`},
		"option with a blank":    {"mount.options = [\"ro -o dev\"]", `F:1: mount.options: "ro -o dev" is not accepted: a mount option has 1 to 256 characters of A-Z a-z 0-9 . _ - : = + / @ % and does not start with -`},
		"relative directory":     {"daemon.runtime_directory = \"run\"", `F:1: daemon.runtime_directory: "run" is not accepted: the path must be absolute, below /, and without "..", "//" or a slash at the end`},
		"bad node name":          {"node.name = \"Compute_1\"", `F:1: node.name: "Compute_1" is not a valid namespace name, accepted: up to 63 characters (a-z, 0-9, "-"), without "-" at the start or end`},
		"verify too often":       {"mount.verify_interval = \"5s\"", `F:1: mount.verify_interval: 5s is out of range, accepted: "0s" (never) or at least 1m`},
		"all, by line":           {"x = 1\n[mount]\nmode = \"unreal\"\norphans = 3\n[log]\nlevel = 5\n", "F:1: unknown key \"x\"\nF:3: mount.mode: \"unreal\" is not a valid value, accepted: real, kind, mock, did you mean \"real\"?\nF:4: mount.orphans: an integer where a word is expected, accepted: \"report\", \"unmount\"\nF:6: log.level: an integer where a word is expected, accepted: \"debug\", \"info\", \"warn\", \"error\""},
		"not TOML":               {"version = 1\nlog.level = debug", `F:2: not valid TOML: expected value but found "debug" instead (near "log.level")`},
		"twice":                  {"[log]\nlevel = \"info\"\nlevel = \"info\"", `F:3: not valid TOML: Key 'log.level' has already been defined. (near "log.level")`},
		"unfinished":             {"version = ", `F:1: not valid TOML: unexpected EOF; expected value (near "version")`},
		"not UTF-8":              {"version = 1\n# \xff", `F:2: is not UTF-8`},
		"UTF-16":                 {"\xff\xfev\x00", `F:1: is not UTF-8`},
		"nested inline tables":   {"a = " + strings.Repeat("{ a = ", 100000), `F:1: nested too deeply for a configuration file`},
		"nested lists":           {"a = " + strings.Repeat("[\n", 100000), `F:8193: nested too deeply for a configuration file`},
		"long dotted key":        {"\n" + strings.Repeat("a.", 100000) + "a = 1", `F:2: nested too deeply for a configuration file`},
		"larger than 1 MiB":      {strings.Repeat("#", config.MaxFile+1), `F: is larger than 1 MiB, which is too large for a configuration file`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"config.toml": test.text})
			c, _, err := loadIn(t, dir, nil, nil)
			if err == nil {
				t.Fatal("no error")
			}
			file := filepath.Join(dir, "config.toml")
			if want := strings.ReplaceAll(test.want, "F:", file+":"); err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			if c.Log.Format != "" {
				t.Error("a field is filled after an error")
			}
		})
	}
}

func TestManyUnknownKeysAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 30000 {
		fmt.Fprintf(&b, "unknown_key_number_%d = 1\n", i)
	}
	start := time.Now()
	_, _, err := loadIn(t, write(t, map[string]string{"config.toml": b.String()}), nil, nil)
	if err == nil || strings.Count(err.Error(), "\n") != config.MaxUnknown || !strings.Contains(err.Error(), "and 29980 more unknown keys") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

// Paths that are not a valid configuration file. Load never blocks on them.
func TestNotAFile(t *testing.T) {
	dir := write(t, map[string]string{"open.toml": "", "config.toml": ""})
	fifo, open := filepath.Join(dir, "fifo"), filepath.Join(dir, "open.toml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		dir:                      "is a directory, accepted: a file",
		fifo:                     "is not a regular file",
		"/dev/zero":              "is not a regular file",
		open:                     "is world-writable, so it is not trusted (chmod o-w)",
		loop:                     "cannot be read: too many levels of symbolic links",
		dir + "/config.toml/x":   "cannot be read: not a directory",
		dir + "/missing.toml":    "does not exist (clientmountd config default prints one)",
		dir + "/forged: ok\nx: ": "does not exist (clientmountd config default prints one)",
	} {
		c := &clientmount.Configuration{}
		_, _, err := config.Load(c.Table(), config.Sources{Args: []string{"--config", file}})
		if err == nil || !strings.HasSuffix("\n"+err.Error(), "\n"+config.CleanName(file)+": "+want) {
			t.Errorf("%q: %v, want %s", file, err, want)
		}
	}
}

func TestDropInDirectory(t *testing.T) {
	dir := write(t, map[string]string{
		"config.toml":               "log.level = \"debug\"\nlog.format = \"json\"\nmount.vg_wait = \"3s\"",
		"config.d/10-first.toml":    "log.level = \"warn\"\nlog.format = \"text\"",
		"config.d/9-last.toml":      "log.level = \"error\"",
		"config.d/.#hidden.toml":    "garbage",
		"config.d/README":           "garbage",
		"config.d/old.toml.rpmsave": "garbage",
	})
	c, r, err := loadIn(t, dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Level.Level() != slog.LevelError || c.Log.Format != "text" || c.Controller.Limits.VGWait != 3*time.Second {
		t.Errorf("%+v", c)
	}
	want := []string{dir + "/config.toml", dir + "/config.d/10-first.toml", dir + "/config.d/9-last.toml"}
	if fmt.Sprint(r.Files) != fmt.Sprint(want) {
		t.Errorf("read %v, want %v", r.Files, want)
	}

	if err := os.Mkdir(dir+"/config.d/zz.toml", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := loadIn(t, dir, nil, nil); err == nil || err.Error() != dir+"/config.d/zz.toml: is a directory, accepted: a file" {
		t.Errorf("a directory as drop-in: %v", err)
	}
}

func TestDropInDirectoryProblems(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "", "config.d": "a file"})
	if _, _, err := loadIn(t, dir, nil, nil); err == nil || err.Error() != dir+"/config.d: cannot be listed: not a directory" {
		t.Errorf("a file as directory: %v", err)
	}
	files := map[string]string{}
	for i := range config.MaxDropIns + 1 {
		files[fmt.Sprintf("config.d/%03d.toml", i)] = ""
	}
	dir = write(t, files)
	if _, _, err := loadIn(t, dir, nil, nil); err == nil || err.Error() != dir+"/config.d: contains 257 files, accepted: at most 256" {
		t.Errorf("many files: %v", err)
	}
	// Errors have the path of the drop-in; those of the main file come first.
	dir = write(t, map[string]string{"config.toml": "b = 1", "config.d/x.toml": "a = 1"})
	want := fmt.Sprintf("%s/config.toml:1: unknown key \"b\"\n%s/config.d/x.toml:1: unknown key \"a\"", dir, dir)
	if _, _, err := loadIn(t, dir, nil, nil); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Brackets in comments do not count as nesting.
func TestShapeAcceptsText(t *testing.T) {
	text := "# " + strings.Repeat("[{.", 10000) + "\n\tversion = 1 # fine\n"
	if line, problem := config.Shape([]byte(text)); problem != "" {
		t.Errorf("line %d: %s", line, problem)
	}
	if _, problems := config.ParseFile(new(clientmount.Configuration).Table(), "f", []byte("\xef\xbb\xbfversion = 1\r\n")); len(problems) > 0 {
		t.Errorf("byte order mark and CRLF: %v", problems[0])
	}
}
