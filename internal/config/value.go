package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxText bounds a single value. No path, name or list needs more.
const maxText = 64 << 10

// parse reads a value in the syntax of a flag or of the environment, checks it
// and returns it in the Go type of its kind. The error says what is accepted.
func (s *Setting) parse(text string) (any, error) {
	v, err := s.convert(text)
	if err != nil {
		return nil, err
	}
	return v, s.accept(v)
}

// convert is parse without the checks on range and meaning.
func (s *Setting) convert(text string) (any, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("the value is too long, accepted: at most %d bytes", maxText)
	}
	switch s.Kind {
	case Bool:
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%s is not a boolean, accepted: true or false", quote(text))
	case Int:
		if n, ok := s.Words[text]; ok {
			return int(n), nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("%s is not an integer%s", quote(text), s.orWords())
		}
		return n, nil
	case Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("%s is not a duration, accepted: a number with a unit, for example \"30s\", \"5m\" or \"1h30m\"", quote(text))
		}
		return d, nil
	case Size:
		if n, ok := s.Words[text]; ok {
			return n, nil
		}
		n, err := parseSize(text)
		if err != nil {
			return nil, fmt.Errorf("%s is not a size, accepted: bytes or a number with a unit, for example \"20MiB\"%s", quote(text), s.orWords())
		}
		return n, nil
	case Strings:
		list := []string{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		return list, nil
	default: // String, Port, Enum
		return text, nil
	}
}

// accept checks range and meaning of a value of the right type.
func (s *Setting) accept(v any) error {
	switch v := v.(type) {
	case string:
		if err := printable(v); err != nil {
			return err
		}
		if s.Kind == Enum && !slices.Contains(s.Values, v) {
			return fmt.Errorf("%s is not known, accepted: %s%s", quote(v), strings.Join(s.Values, ", "), text.DidYouMean(v, s.Values))
		}
		if n, err := strconv.Atoi(v); s.Kind == Port && v != "" && (err != nil || n < 1 || n > 65535) {
			return fmt.Errorf("%s is not a port, accepted: 1 to 65535", quote(v))
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

// printable refuses what would break a line of the log, or a path.
func printable(text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return fmt.Errorf("%s holds a control character or is not UTF-8, accepted: plain text", quote(text))
	}
	return nil
}

// inRange holds v against Min and Max. Words stand outside the range.
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

// rangeText says which numbers are accepted, "" when all are.
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

func (s *Setting) bound(text string) int64 {
	v, err := s.convert(text)
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

// fill writes v to where the table points.
func (s *Setting) fill(v any) error {
	switch field := s.Field.(type) {
	case nil:
		return nil // a table for documentation only
	case *string:
		*field = v.(string)
	case *bool:
		*field = v.(bool)
	case *int:
		*field = v.(int)
	case *int64:
		*field = v.(int64)
	case *time.Duration:
		*field = v.(time.Duration)
	case *[]string:
		*field = slices.Clone(v.([]string))
	default:
		return errors.New("config: no way to fill the field of " + s.Key)
	}
	return nil
}
