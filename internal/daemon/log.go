package daemon

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lmittmann/tint"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// logFormats are the valid values of LogOptions.Format.
var logFormats = []string{"auto", "tint", "text", "json", "journal"}

// LogOptions configures a logger. The zero value is valid.
type LogOptions struct {
	Level      *slog.LevelVar // lowest level that is logged, can be changed later; nil: info
	Format     string         // one of logFormats; "" is auto
	Writer     io.Writer      // nil: standard error
	Identifier string         // SYSLOG_IDENTIFIER in the journal: the name of the program

	getenv     func(string) string // nil: os.Getenv
	isTerminal func() bool         // nil: check Writer
	journal    string              // "": /run/systemd/journal/socket

	patience time.Duration // of the journal socket; 0: journalPatience
}

// newLogger returns the logger of the program. Format auto is journal if the service
// manager connected Writer to the journal, tint if Writer is a terminal, and text
// otherwise. The closer closes the connection to the journal; the logger then writes
// to Writer. The only error is an unknown format.
func newLogger(o LogOptions) (*slog.Logger, io.Closer, error) {
	if o.Level == nil {
		o.Level = new(slog.LevelVar)
	}
	if o.Writer == nil {
		o.Writer = os.Stderr
	}
	if o.getenv == nil {
		o.getenv = os.Getenv
	}
	if o.patience == 0 {
		o.patience = journalPatience
	}
	if o.journal == "" {
		o.journal = journalSocketPath
	}
	format := o.Format
	if format == "" || format == "auto" {
		format = o.detect()
	}
	switch format {
	case "journal":
		socket := &journalSocket{path: o.journal, patience: o.patience}
		return slog.New(newJournalHandler(o, socket)), socket, nil
	case "tint":
		h := tint.NewTextHandler(o.Writer, &tint.Options{
			Level:      o.Level,
			TimeFormat: "15:04:05.000",
			NoColor:    o.getenv("NO_COLOR") != "" || o.getenv("TERM") == "dumb",
		})
		message := func(s string) string { return text.Escape(clipMessage(s)) }
		return slog.New(safeHandler{h, message, plainKey, tintValue}), noCloser{}, nil
	case "text":
		h := slog.NewTextHandler(o.Writer, &slog.HandlerOptions{Level: o.Level})
		return slog.New(safeHandler{h, clipMessage, sameKey, textValue}), noCloser{}, nil
	case "json":
		h := slog.NewJSONHandler(o.Writer, &slog.HandlerOptions{Level: o.Level})
		return slog.New(safeHandler{h, clipMessage, sameKey, jsonValue}), noCloser{}, nil
	}
	return nil, nil, fmt.Errorf("unknown log format %q: use one of %s", o.Format, strings.Join(logFormats, ", "))
}

type noCloser struct{}

func (noCloser) Close() error { return nil }

func (o LogOptions) detect() string {
	file, _ := o.Writer.(*os.File)
	if file != nil && isJournalStream(file, o.getenv("JOURNAL_STREAM")) {
		return "journal"
	}
	terminal := o.isTerminal
	if terminal == nil {
		terminal = func() bool { return file != nil && term.IsTerminal(int(file.Fd())) }
	}
	if terminal() {
		return "tint"
	}
	return "text"
}

// errorPrefix returns the prefix that gives a line the priority err in the journal,
// if w is connected to the journal (sd-daemon(3)). It is for errors before a logger
// exists, which would otherwise have the priority info.
func errorPrefix(w io.Writer, getenv func(string) string) string {
	if file, ok := w.(*os.File); ok && isJournalStream(file, getenv("JOURNAL_STREAM")) {
		return "<3>"
	}
	return ""
}

// isJournalStream reports whether stream, the value of JOURNAL_STREAM, has the device
// and inode of file. The variable alone is not enough: every child process inherits
// it, even if its standard error is redirected (systemd.exec(5)).
func isJournalStream(file *os.File, stream string) bool {
	dev, ino, found := strings.Cut(stream, ":")
	if !found {
		return false
	}
	wantDev, err1 := strconv.ParseUint(dev, 10, 64)
	wantIno, err2 := strconv.ParseUint(ino, 10, 64)
	var st unix.Stat_t
	if err1 != nil || err2 != nil || unix.Fstat(int(file.Fd()), &st) != nil {
		return false
	}
	return st.Dev == wantDev && st.Ino == wantIno
}

// Event identifies a kind of log record: `journalctl MESSAGE_ID=…` matches it in the
// journal, event=name in other formats. The ID is also the key of the entry in the
// message catalogue of the journal, so it must never change or get a second meaning.
type Event struct {
	ID   string // 32 lower-case hexadecimal digits, as `systemd-id128 new` prints
	Name string // value in other log formats: lower case, words joined by '-'
}

// EventID returns the attribute that marks a record as event e.
func EventID(e Event) slog.Attr { return slog.Any(eventKey, e) }

const eventKey = "event"

// LogValue returns the name, so that handlers without support for Event print
// event=name.
func (e Event) LogValue() slog.Value { return slog.StringValue(e.Name) }

// Valid reports whether the journal would accept the ID.
func (e Event) Valid() bool {
	if len(e.ID) != 32 || e.Name == "" {
		return false
	}
	for _, c := range []byte(e.ID) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// The events that this package logs itself.
var (
	EventStopping    = Event{ID: "393a4bf9e873460d80aa6dbd15bb4801", Name: "stopping"}
	EventStopped     = Event{ID: "5e2a089cdedf4707a9e6c01eb8824386", Name: "stopped"}
	EventStopForced  = Event{ID: "0bc93dadb49d419297883c74543d0abb", Name: "stop-forced"}
	EventReload      = Event{ID: "7a571ca2ac9a49e88990eacf2eb7b47a", Name: "reload"}
	EventPanic       = Event{ID: "a0efbdb028df4dbca7f7ca7e847b984f", Name: "panic"}
	EventLoopStuck   = Event{ID: "f1952051c94d434f96be569816be0981", Name: "loop-stuck"}
	EventLoopAnswers = Event{ID: "a0646f3fc4db48199b73f7c8e659bdc9", Name: "loop-answers"}

	EventTokenRenewed    = Event{ID: "3c0f2a9be65d4c5f9a37c1b7a1f0d2e8", Name: "token-renewed"}
	EventTokenNotRenewed = Event{ID: "b7e4a1c85d2f4f6e8c09d3a6e5b1f740", Name: "token-not-renewed"}
	EventTokenExpired    = Event{ID: "58d9c3f1a4e74b0d9e26f7b8c0a1d563", Name: "token-expired"}
)

// Events returns all of them, for the test that the message catalogue is complete.
func Events() []Event {
	return []Event{EventStopping, EventStopped, EventStopForced, EventReload, EventPanic, EventLoopStuck, EventLoopAnswers, EventTokenRenewed, EventTokenNotRenewed, EventTokenExpired}
}

// safeHandler wraps the handler of a library and passes it only values that the
// library prints safely. The functions depend on the format.
type safeHandler struct {
	slog.Handler
	message func(string) string
	key     func(string) string
	value   func(key string, v slog.Value) (string, slog.Value) // never a group
}

func (h safeHandler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, h.message(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(h.attr(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h safeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	safe := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		safe[i] = h.attr(a)
	}
	h.Handler = h.Handler.WithAttrs(safe)
	return h
}

func (h safeHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(h.key(name))
	return h
}

func (h safeHandler) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		members := v.Group()
		safe := make([]slog.Attr, len(members))
		for i, m := range members {
			safe[i] = h.attr(m)
		}
		return slog.Attr{Key: h.key(a.Key), Value: slog.GroupValue(safe...)}
	}
	if a.Equal(slog.Attr{}) {
		return a // handlers leave these out
	}
	key, v := h.value(h.key(a.Key), v)
	return slog.Attr{Key: key, Value: v}
}

func sameKey(key string) string { return key }

// plainKey replaces characters that would require quotes around the key.
func plainKey(key string) string {
	if key == "" || plain(key) {
		return key
	}
	return strings.Map(func(r rune) rune {
		if plain(string(r)) {
			return r
		}
		return '_'
	}, key)
}

func clipMessage(s string) string { return clip(s, maxValue) }

// jsonValue keeps numbers, booleans and times, and converts everything else to text.
// The attribute duration becomes the number duration_ms, as in the journal.
func jsonValue(key string, v slog.Value) (string, slog.Value) {
	switch v.Kind() {
	case slog.KindDuration:
		if key == durationKey {
			return durationKey + "_ms", slog.Float64Value(milliseconds(v.Duration()))
		}
		return key, slog.StringValue(v.Duration().String())
	case slog.KindString, slog.KindAny:
		return key, slog.StringValue(clip(valueText(v), maxValue))
	default:
		return key, v
	}
}

// textValue is for the text handler of slog, which quotes values if necessary.
func textValue(key string, v slog.Value) (string, slog.Value) {
	switch v.Kind() {
	case slog.KindDuration:
		return key, slog.DurationValue(shortDuration(v.Duration()))
	case slog.KindString, slog.KindAny:
		return key, slog.StringValue(clip(valueText(v), maxValue))
	default:
		return key, v
	}
}

// tintValue is for tint, which passes escape sequences through deliberately. With
// colours on, it even converts the four characters `\x1b` of a quoted string into an
// escape character. It does not do so for byte slices, so values that are not plain
// are passed as bytes.
func tintValue(key string, v slog.Value) (string, slog.Value) {
	key, v = textValue(key, v)
	if v.Kind() == slog.KindString && v.String() != "" && !plain(v.String()) {
		return key, slog.AnyValue([]byte(v.String()))
	}
	return key, v
}

// maxValue limits each value of a log record, in bytes. Values include the output of
// commands and text from API objects, which must not fill the memory or the disk of
// a compute node.
const maxValue = 64 << 10

// valueText returns the text of a resolved attribute value: the message of an error,
// never a format that may include a stack; bytes unchanged. If a method of the value
// panics, it returns the text of the panic, because logging must not end the program.
func valueText(v slog.Value) (s string) {
	defer func() {
		if r := recover(); r != nil {
			s = fmt.Sprintf("!PANIC: %v", r)
		}
	}()
	if v.Kind() != slog.KindAny {
		return v.String()
	}
	switch x := v.Any().(type) {
	case nil:
		return "<nil>"
	case error:
		return x.Error()
	case []byte:
		return string(x)
	case fmt.Stringer:
		return x.String()
	case encoding.TextMarshaler:
		b, err := x.MarshalText()
		if err != nil {
			return "!ERROR: " + err.Error()
		}
		return string(b)
	default:
		return fmt.Sprintf("%+v", x)
	}
}

// clip shortens s to at most limit bytes plus a note with its length. It does not
// split UTF-8 sequences.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return text.Clip(s, limit) + " (" + strconv.Itoa(len(s)) + " bytes)"
}

// plain reports whether s can follow key= without quotes.
func plain(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == ' ' || r == '=' || r == '"' || r == '\\' || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// shortDuration rounds d for people: 41ms, 1.2s, not 41.203118ms.
func shortDuration(d time.Duration) time.Duration {
	switch abs := d.Abs(); {
	case abs >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case abs >= time.Second:
		return d.Round(10 * time.Millisecond)
	case abs >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	case abs >= time.Millisecond:
		return d.Round(100 * time.Microsecond)
	default:
		return d.Round(time.Microsecond)
	}
}

// milliseconds returns d in milliseconds, truncated to microseconds.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
