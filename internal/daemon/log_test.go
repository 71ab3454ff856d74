package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"golang.org/x/sys/unix"
)

// helpers are the programs that TestMain runs, by the value of DAEMON_TEST_HELPER.
var helpers = map[string]func() int{
	"broken-stderr": helperBrokenStderr,
}

// helper returns the command that runs this binary as the named program, and a
// function that runs it and returns its standard output.
func helper(t *testing.T, name string) (*exec.Cmd, func() string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "DAEMON_TEST_HELPER="+name)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, func() string {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(stdout)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return string(b)
	}
}

// helperBrokenStderr logs to a closed pipe, as during a restart of the journal. A Go
// program exits then unless it handles SIGPIPE.
func helperBrokenStderr() int {
	log, _, err := newLogger(LogOptions{Format: "text"})
	if err != nil {
		return 3
	}
	return runLifecycle(context.Background(), lifecycle{Log: log, Main: func(context.Context) error {
		for range 3 {
			log.Info("into the void")
		}
		// Child processes must have the default action of SIGPIPE.
		out, err := exec.Command("/bin/sh", "-c", "kill -PIPE $$; echo survived").Output()
		fmt.Printf("child: %q %v\n", out, err)
		return nil
	}})
}

func TestBrokenStandardError(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd, run := helper(t, "broken-stderr")
	cmd.Stderr = w
	if got, want := run(), "child: \"\" signal: broken pipe\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// buffer collects the output of a logger. It is safe for concurrent use.
type buffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	return len(p), nil
}

func (b *buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]byte(nil), b.data...)
}

func (b *buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = nil
}

func (b *buffer) String() string { return string(b.Bytes()) }
func (b *buffer) Len() int       { return len(b.Bytes()) }

func environ(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// logInto returns a logger of the format, and its output.
func logInto(t *testing.T, format string, env ...string) (*slog.Logger, *buffer) {
	t.Helper()
	var out buffer
	log, closer, err := newLogger(LogOptions{Format: format, Writer: &out, getenv: environ(env...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closer.Close() })
	return log, &out
}

func TestDetect(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	yes, no := func() bool { return true }, func() bool { return false }
	for name, c := range map[string]struct {
		writer   io.Writer
		stream   string
		terminal func() bool
		want     string
	}{
		"under systemd":           {file, ours, no, "journal"},
		"other device":            {file, fmt.Sprintf("%d:%d", st.Dev+1, st.Ino), no, "text"},
		"other inode":             {file, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1), no, "text"},
		"inherited in a terminal": {file, "1:1", yes, "tint"},
		"garbage":                 {file, "a:b", no, "text"},
		"half":                    {file, "1", no, "text"},
		"no numbers":              {file, ":", no, "text"},
		"negative":                {file, "-1:-1", no, "text"},
		"terminal":                {file, "", yes, "tint"},
		"file":                    {file, "", nil, "text"},
		"buffer":                  {new(buffer), ours, nil, "text"},
	} {
		o := LogOptions{Writer: c.writer, getenv: environ("JOURNAL_STREAM", c.stream), isTerminal: c.terminal}
		if got := o.detect(); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		prefix := map[bool]string{true: "<3>"}[c.want == "journal"]
		if got := errorPrefix(c.writer, o.getenv); got != prefix {
			t.Errorf("%s: error prefix %q, want %q", name, got, prefix)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	_, _, err := newLogger(LogOptions{Format: "xml"})
	if err == nil || !strings.Contains(err.Error(), `"xml"`) || !strings.Contains(err.Error(), "journal") {
		t.Errorf("the error lacks the value or the valid formats: %v", err)
	}
}

func TestLevelCanChange(t *testing.T) {
	for _, format := range []string{"tint", "text", "json"} {
		var out buffer
		level := new(slog.LevelVar)
		log, _, err := newLogger(LogOptions{Format: format, Writer: &out, Level: level})
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("unseen")
		level.Set(slog.LevelDebug)
		log.Debug("seen")
		if got := out.String(); strings.Contains(got, "unseen") || !strings.Contains(got, "seen") {
			t.Errorf("%s: %q", format, got)
		}
	}
}

var testEvent = Event{ID: "0123456789abcdef0123456789abcdef", Name: "mounted"}

func TestFormats(t *testing.T) {
	args := []any{EventID(testEvent), "clientmount", "default-job7-0-computes", "path", "/mnt/a b",
		"duration", 41237 * time.Microsecond, "limit", 30 * time.Second, "error", stackedError{},
		slog.Group("source", slog.Int("index", 2))}
	for format, want := range map[string][]string{
		"text": {`level=INFO msg="mounted file system" event=mounted clientmount=default-job7-0-computes path="/mnt/a b"`,
			`duration=41ms limit=30s error=short source.index=2`},
		"json": {`"msg":"mounted file system","event":"mounted","clientmount":"default-job7-0-computes"`,
			`"duration_ms":41.237,"limit":"30s","error":"short","source":{"index":2}`},
		"tint": {`INF mounted file system event=mounted clientmount=default-job7-0-computes path="/mnt/a b"`,
			`duration=41ms limit=30s error=short source.index=2`},
	} {
		log, out := logInto(t, format, "NO_COLOR", "1")
		log.Info("mounted file system", args...)
		line := strings.TrimSuffix(out.String(), "\n")
		for _, part := range want {
			if !strings.Contains(line, part) {
				t.Errorf("%s: no %s in\n%s", format, part, line)
			}
		}
		if strings.Contains(line, "\n") || strings.Contains(line, testEvent.ID) {
			t.Errorf("%s: %q", format, line)
		}
	}
}

func TestColours(t *testing.T) {
	for name, c := range map[string]struct {
		env  []string
		want bool
	}{
		"default":        {nil, true},
		"empty NO_COLOR": {[]string{"NO_COLOR", ""}, true},
		"NO_COLOR":       {[]string{"NO_COLOR", "0"}, false},
		"dumb terminal":  {[]string{"TERM", "dumb"}, false},
	} {
		log, out := logInto(t, "tint", c.env...)
		log.Error("x", "k", "v")
		if got := strings.Contains(out.String(), "\x1b["); got != c.want {
			t.Errorf("%s: colours %v: %q", name, got, out.String())
		}
	}
}

// hostile are texts that a user could put into an object to control the terminal of
// an administrator or to forge log lines.
var hostile = []string{
	"\x1b[2Jcleared", "a \x1b]0;title\x07", "\u009b2J", "a\rb", "a\nlevel=ERROR msg=forged", "\x00", "\x7f",
	"\u202eevil", "\xff\xfe", `a \x1b[2J`, `\x1b`, `a b\\x1b[2J`, "\"quote\" \x1b",
}

// safeOnTerminal fails if line has control characters other than the colours of tint
// and the final line feed.
func safeOnTerminal(t *testing.T, format, line string) {
	t.Helper()
	line, ended := strings.CutSuffix(line, "\n")
	if !ended {
		t.Errorf("%s: no line feed: %q", format, line)
	}
	for _, colour := range []string{"\x1b[0m", "\x1b[2m", "\x1b[22m", "\x1b[91m", "\x1b[92m", "\x1b[93m"} {
		line = strings.ReplaceAll(line, colour, "")
	}
	// The text handler of slog keeps DEL, which has no effect on terminals.
	if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r >= 0x80 && r < 0xa0 || r == 0x202e }); i >= 0 {
		t.Errorf("%s: raw control character at %d of %q", format, i, line)
	}
}

func TestHostileText(t *testing.T) {
	for _, text := range hostile {
		for _, format := range []string{"tint", "text", "json"} {
			for _, env := range [][]string{nil, {"NO_COLOR", "1"}} {
				log, out := logInto(t, format, env...)
				log.With("with", text).WithGroup("g").Info(text, "value", text, "error", errors.New(text),
					"bytes", []byte(text), "any", []string{text}, text, "as a key", slog.Group(text, "k", text))
				if format == "json" {
					if !json.Valid(out.Bytes()) {
						t.Errorf("not JSON: %q", out)
					}
					continue
				}
				safeOnTerminal(t, format, out.String())
			}
		}
	}
}

func FuzzTint(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		log, out := logInto(t, "tint")
		log.Info(text, "value", text)
		safeOnTerminal(t, "tint", out.String())
	})
}

func TestValuesAreBounded(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	for _, format := range []string{"tint", "text", "json"} {
		log, out := logInto(t, format)
		log.Info(huge, "value", huge, "error", errors.New(huge))
		if n := out.Len(); n < 3*maxValue || n > 3*maxValue+1000 {
			t.Errorf("%s: %d bytes", format, n)
		}
	}
}

// The wrapper keeps the contract of slog.Handler. The test uses JSON, which it can
// parse.
func TestSafeHandler(t *testing.T) {
	var out *buffer
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		var log *slog.Logger
		log, out = logInto(t, "json")
		return log.Handler()
	}, func(t *testing.T) map[string]any {
		m := map[string]any{}
		if err := json.Unmarshal(out.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func TestEventsAreValidAndUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range Events() {
		if !e.Valid() {
			t.Errorf("%+v is not valid", e)
		}
		if seen[e.ID] || seen[e.Name] {
			t.Errorf("%+v: name or ID is used twice", e)
		}
		seen[e.ID], seen[e.Name] = true, true
	}
	for _, bad := range []Event{{}, {Name: "x"}, {ID: "0123", Name: "x"}, {ID: strings.Repeat("A", 32), Name: "x"}, {ID: strings.Repeat("a", 32)}} {
		if bad.Valid() {
			t.Errorf("%+v is valid", bad)
		}
	}
}

type stringer struct{}

func (stringer) String() string { return "a stringer" }

type panicking struct{}

func (panicking) String() string { panic("boom") }

type stackedError struct{}

func (stackedError) Error() string              { return "short" }
func (stackedError) Format(s fmt.State, _ rune) { fmt.Fprint(s, "short\nwith a stack") }

type marshals struct{ err error }

func (m marshals) MarshalText() ([]byte, error) { return []byte("marshalled"), m.err }

func TestValueText(t *testing.T) {
	var nilError *PanicError
	for name, c := range map[string]struct {
		in   any
		want string
	}{
		"string":             {"a b", "a b"},
		"int":                {-7, "-7"},
		"bool":               {true, "true"},
		"nil":                {nil, "<nil>"},
		"error":              {errors.New("no such device"), "no such device"},
		"error with stack":   {stackedError{}, "short"},
		"bytes":              {[]byte("raw\xff"), "raw\xff"},
		"stringer":           {stringer{}, "a stringer"},
		"marshaler":          {marshals{}, "marshalled"},
		"marshaler fails":    {marshals{errors.New("bad")}, "!ERROR: bad"},
		"slice":              {[]string{"a", "b"}, "[a b]"},
		"struct":             {struct{ A int }{1}, "{A:1}"},
		"panicking stringer": {panicking{}, "!PANIC: boom"},
	} {
		if got := valueText(slog.AnyValue(c.in).Resolve()); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := valueText(slog.AnyValue(error(nilError))); !strings.HasPrefix(got, "!PANIC") {
		t.Errorf("nil pointer in an error: got %q", got)
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"12345", "12345"},
		{"123456", "12345… (6 bytes)"},
		{"1234äx", "1234… (7 bytes)"}, // ä is not split
		{"123äxx", "123ä… (7 bytes)"},
		{"\x80\x80\x80\x80\x80\x80\x80", "\x80… (7 bytes)"}, // not UTF-8: any cut is correct
	} {
		if got := clip(c.in, 5); got != c.want {
			t.Errorf("clip(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]bool{
		"":                  false,
		"/mnt/nnf/job7":     true,
		"größe":             true,
		"a b":               false,
		"a=b":               false,
		`a"b`:               false,
		`a\x1b`:             false,
		"a\nb":              false,
		"a\xff":             false,
		"rabbit[0-3].local": true,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %v", in, got)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0:                         "0s",
		1234 * time.Nanosecond:    "1µs",
		1234 * time.Microsecond:   "1.2ms",
		41237 * time.Microsecond:  "41ms",
		1234567890:                "1.23s",
		12345 * time.Millisecond:  "12.3s",
		-41237 * time.Microsecond: "-41ms",
	} {
		if got := shortDuration(in).String(); got != want {
			t.Errorf("shortDuration(%s) = %s, want %s", in, got, want)
		}
	}
}
