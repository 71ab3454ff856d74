package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxText limits a value, in bytes. No path, name or list needs more.
const maxText = 64 << 10

// parse parses and checks a value in the syntax of flags and environment variables. It
// returns the value in the Go type of its kind. The error says which values are
// accepted.
func (s *Setting) parse(value string) (any, error) {
	v, err := s.convert(value)
	if err != nil {
		return nil, err
	}
	return v, s.accept(v)
}

// convert is parse without accept.
func (s *Setting) convert(value string) (any, error) {
	if len(value) > maxText {
		return nil, fmt.Errorf("the value is too long, accepted: at most %d bytes", maxText)
	}
	switch s.Kind {
	case Bool:
		switch value {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%s is not a boolean, accepted: true or false", text.Quote(value))
	case Int:
		if n, ok := s.Words[value]; ok {
			return int(n), nil
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("%s is not an integer%s", text.Quote(value), s.orWords())
		}
		return n, nil
	case Duration:
		d, err := time.ParseDuration(value)
		if err != nil {
			return nil, fmt.Errorf("%s is not a duration, accepted: a number with a unit, for example \"30s\", \"5m\" or \"1h30m\"", text.Quote(value))
		}
		return d, nil
	case Size:
		if n, ok := s.Words[value]; ok {
			return n, nil
		}
		n, err := parseSize(value)
		if err != nil {
			return nil, fmt.Errorf("%s is not a size, accepted: bytes or a number with a unit, for example \"20MiB\"%s", text.Quote(value), s.orWords())
		}
		return n, nil
	case Strings:
		list := []string{}
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		return list, nil
	default: // String, Port, Enum
		return value, nil
	}
}

// accept checks the range of a value of the right type and calls Check.
func (s *Setting) accept(v any) error {
	switch v := v.(type) {
	case string:
		if err := printable(v); err != nil {
			return err
		}
		if s.Kind == Enum && !slices.Contains(s.Values, v) {
			return fmt.Errorf("%s is not a valid value, accepted: %s%s", text.Quote(v), strings.Join(s.Values, ", "), text.DidYouMean(v, s.Values))
		}
		if n, err := strconv.Atoi(v); s.Kind == Port && v != "" && (err != nil || n < 1 || n > 65535) {
			return fmt.Errorf("%s is not a port, accepted: 1 to 65535", text.Quote(v))
		}
	case []string:
		for _, item := range v {
			if err := printable(item); err != nil {
				return err
			}
		}
	}
	if err := s.inRange(v); err != nil {
		return err
	}
	if s.Check != nil {
		return s.Check(v)
	}
	return nil
}

// printable returns an error for text that is not UTF-8 or has control characters.
func printable(value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return fmt.Errorf("%s contains a control character or is not UTF-8, accepted: plain text", text.Quote(value))
	}
	return nil
}

// inRange checks v against Min and Max. The values of Words are always accepted.
func (s *Setting) inRange(v any) error {
	n, ok := number(v)
	if !ok || s.isWord(n) {
		return nil
	}
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	if s.Min != "" {
		low = s.bound(s.Min)
	}
	if s.Max != "" {
		high = s.bound(s.Max)
	}
	if n >= low && n <= high {
		return nil
	}
	return fmt.Errorf("%s is out of range, accepted: %s%s", bare(s.Kind, v), s.rangeText(), s.orWords())
}

// rangeText describes the valid range; "": all numbers.
func (s *Setting) rangeText() string {
	switch {
	case s.Min != "" && s.Max != "":
		return s.Min + " to " + s.Max
	case s.Min != "":
		return "at least " + s.Min
	case s.Max != "":
		return "at most " + s.Max
	}
	return ""
}

func (s *Setting) bound(value string) int64 {
	v, err := s.convert(value)
	n, ok := number(v)
	if err != nil || !ok {
		panic("config: bad bound of " + s.Key) // a mistake in the table, found by its test
	}
	return n
}

func (s *Setting) isWord(n int64) bool {
	for _, w := range s.Words {
		if w == n {
			return true
		}
	}
	return false
}

func (s *Setting) orWords() string {
	var b strings.Builder
	for _, w := range sortedKeys(s.Words) {
		fmt.Fprintf(&b, " or %q", w)
	}
	return b.String()
}

func number(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case time.Duration:
		return int64(v), true
	}
	return 0, false
}

// fill sets the field to v.
func (s *Setting) fill(v any) error {
	wrong := errors.New("config: no way to fill the field of " + s.Key)
	if s.Field == nil {
		return nil // a table for documentation only
	}
	if field, ok := s.Field.(encoding.TextUnmarshaler); ok {
		return field.UnmarshalText([]byte(bare(s.Kind, v)))
	}
	field, value := reflect.ValueOf(s.Field), reflect.ValueOf(v)
	if field.Kind() != reflect.Pointer || !assignable(field.Elem().Type(), v) {
		return wrong
	}
	if list, ok := v.([]string); ok {
		value = reflect.ValueOf(slices.Clone(list))
	}
	field.Elem().Set(value.Convert(field.Elem().Type()))
	return nil
}

// assignable reports whether v can be converted to type t without loss. Durations are
// only converted to time.Duration.
func assignable(t reflect.Type, v any) bool {
	switch v := v.(type) {
	case string:
		return t.Kind() == reflect.String
	case bool:
		return t.Kind() == reflect.Bool
	case []string:
		return t == reflect.TypeFor[[]string]()
	case time.Duration:
		return t == reflect.TypeFor[time.Duration]()
	case int, int64:
		n, _ := number(v)
		switch t.Kind() {
		case reflect.Int, reflect.Int64:
			return t != reflect.TypeFor[time.Duration]()
		case reflect.Float32, reflect.Float64:
			return n == int64(float32(n))
		}
	}
	return false
}

// NamespaceName is a Check. It accepts valid names of Kubernetes namespaces (RFC 1123
// labels) and "".
func NamespaceName(value any) error {
	name := value.(string)
	foreign := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	if len(name) > 63 || strings.ContainsFunc(name, foreign) || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") {
		return fmt.Errorf("%s is not a valid namespace name, accepted: up to 63 characters (a-z, 0-9, \"-\"), without \"-\" at the start or end", text.Quote(name))
	}
	return nil
}

// AbsolutePath is a Check. It accepts clean absolute paths other than /.
func AbsolutePath(value any) error {
	if path := value.(string); !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return fmt.Errorf("%s is not accepted: the path must be absolute, below /, and without \"..\", \"//\" or a slash at the end", text.Quote(path))
	}
	return nil
}

// FirstOfList is a Convert for variables such as RUNTIME_DIRECTORY, which systemd sets to a
// colon-separated list if a unit has several directories.
func FirstOfList(value string) (string, bool, error) {
	first, _, _ := strings.Cut(value, ":")
	return first, first != "", nil
}

// literal returns v in TOML syntax.
func (s *Setting) literal(v any) string {
	switch v := v.(type) {
	case string:
		return tomlString(v)
	case []string:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = tomlString(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case int, int64:
		n, _ := number(v)
		for _, w := range sortedKeys(s.Words) {
			if s.Words[w] == n {
				return tomlString(w)
			}
		}
		if s.Kind == Size {
			return tomlString(formatSize(n))
		}
	case time.Duration:
		return tomlString(formatDuration(v))
	}
	return bare(s.Kind, v)
}

// bare returns v in the syntax of a flag.
func bare(kind Kind, v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case int64:
		return formatSize(v)
	case time.Duration:
		return formatDuration(v)
	case []string:
		return strings.Join(v, ",")
	}
	return "(" + kind.Noun() + ")"
}

// formatDuration omits the zero units that time.Duration prints: 2m, not 2m0s.
func formatDuration(d time.Duration) string {
	value := d.String()
	if strings.HasSuffix(value, "m0s") {
		value = strings.TrimSuffix(value, "0s")
	}
	if strings.HasSuffix(value, "h0m") {
		value = strings.TrimSuffix(value, "0m")
	}
	return value
}

// sizeUnits are the units of GOMEMLIMIT of the Go runtime, the largest first.
var sizeUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// parseSize parses a number of bytes: "1024", "20MiB". It returns an error for
// fractions and negative sizes.
func parseSize(value string) (int64, error) {
	unit := int64(1)
	for _, u := range sizeUnits {
		if digits, found := strings.CutSuffix(value, u.name); found {
			value, unit = strings.TrimSpace(digits), u.size
			break
		}
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(value, "+") {
		return 0, errors.New("not a size")
	}
	if n > math.MaxInt64/unit {
		return 0, errors.New("size too large")
	}
	return n * unit, nil
}

// formatSize returns the shortest exact form.
func formatSize(n int64) string {
	for _, u := range sizeUnits[:len(sizeUnits)-1] {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// tomlString returns a TOML basic string. TOML lacks some escapes of Go (\x, \a), so
// control characters are written as \u0009.
func tomlString(value string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range value {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			hex := strconv.FormatInt(int64(r), 16)
			b.WriteString(`\u` + strings.Repeat("0", 4-len(hex)) + hex)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
