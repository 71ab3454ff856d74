package daemon

import (
	"encoding"
	"fmt"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxValue bounds each value of a log record, in bytes. Output of commands and
// text out of API objects end up in values; a log line must not become a way
// to fill the memory or the disk of a compute node.
const maxValue = 64 << 10

// valueText is the text of a resolved attribute value: errors by their
// message, never by a richer form that could carry a stack; bytes as they are.
// A value whose own method panics yields the panic's text, because a log line
// must not end the program.
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

// clip cuts s to at most limit bytes plus a note of how long it was; it does
// not cut a UTF-8 sequence in two.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return text.Clip(s, limit) + " (" + strconv.Itoa(len(s)) + " bytes)"
}

// plain reports whether s can stand after key= without quotes.
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

// shortDuration rounds d to what a person reads: 41ms, 1.2s, not 41.203118ms.
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

// milliseconds is d for machines: whole microseconds, written in milliseconds.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
