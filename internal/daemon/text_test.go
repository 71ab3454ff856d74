package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

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
		{"1234äx", "1234… (7 bytes)"}, // not half an ä
		{"123äxx", "123ä… (7 bytes)"},
		{"\x80\x80\x80\x80\x80\x80\x80", "\x80… (7 bytes)"}, // not UTF-8 at all: any cut does
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
