package rabbit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Rule injects faults into the movements that match its pattern. If several rules set
// the same fault, the first applies.
type Rule struct {
	Pattern string // matched against NAMESPACE/NAME, source and destination path; * matches any text, including slashes
	Faults
}

// Faults are the faults that can be injected. The zero value injects none.
type Faults struct {
	Hold    bool          // ignore the movement while this is set, including its deletion
	Delay   time.Duration // between the first event and the preparation
	Minor   int           // number of preparations that fail with a Minor error
	Invalid string        // the preparation fails with this error
	Rate    int64         // bytes per second of the copy
	Exit    int           // the copy fails halfway with this exit code
	Die     time.Duration // the rabbit restarts this long after the start of the command, once per movement
	Storm   int           // unrelated changes of the object per second, until it is finished
}

// ParseRule parses "PATTERN NAME=VALUE...". Names: hold=true delay=DURATION
// minor=N invalid=TEXT (no spaces) rate=BYTES[k|M|G] exit=CODE die=DURATION
// storm=PER-SECOND.
func ParseRule(line string) (Rule, error) {
	words := strings.Fields(line)
	if len(words) < 2 || strings.Contains(words[0], "=") {
		return Rule{}, fmt.Errorf("fault %q: expected PATTERN NAME=VALUE, for example '* delay=2s'", line)
	}
	rule := Rule{Pattern: words[0]}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		if err := rule.set(name, value); err != nil {
			return Rule{}, fmt.Errorf("fault %q: %s: %w", line, word, err)
		}
	}
	return rule, nil
}

func (f *Faults) set(name, value string) (err error) {
	switch name {
	case "hold":
		f.Hold, err = strconv.ParseBool(value)
	case "delay":
		f.Delay, err = time.ParseDuration(value)
	case "minor":
		f.Minor, err = strconv.Atoi(value)
	case "invalid":
		f.Invalid = value
	case "rate":
		f.Rate, err = parseSize(value)
	case "exit":
		f.Exit, err = strconv.Atoi(value)
		if f.Exit < 0 || f.Exit > 255 {
			err = errors.New("must be from 0 to 255")
		}
	case "die":
		f.Die, err = time.ParseDuration(value)
	case "storm":
		f.Storm, err = strconv.Atoi(value)
		if f.Storm < 0 || f.Storm > 1000 {
			err = errors.New("must be from 0 to 1000")
		}
	default:
		err = errors.New("unknown name; valid names are hold delay minor invalid rate exit die storm")
	}
	return err
}

func parseSize(text string) (int64, error) {
	shift := 0
	for suffix, s := range map[string]int{"k": 10, "M": 20, "G": 30} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, shift = rest, s
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err == nil && n <= 0 {
		err = errors.New("must be greater than 0")
	}
	return n << shift, err
}

// controlFile has further rules, one per line; # starts a comment. It is read at every
// decision. Invalid lines are logged and ignored.
const controlFile = "faults"

func (r *rabbit) faults(m *movement) Faults {
	var f Faults
	rules, err := readRules(filepath.Join(r.Dir, controlFile))
	if err != nil {
		r.Log("%v", err)
	}
	for _, rule := range append(rules, r.Faults...) {
		if rule.matches(m) {
			f.merge(rule.Faults)
		}
	}
	return f
}

func readRules(path string) ([]Rule, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rules []Rule
	var wrong []error
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		rule, err := ParseRule(line)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", path, err))
			continue
		}
		rules = append(rules, rule)
	}
	return rules, errors.Join(wrong...)
}

func (r Rule) matches(m *movement) bool {
	for _, text := range []string{m.Namespace + "/" + m.Name, m.Spec.Source.Path, m.Spec.Destination.Path} {
		if glob(r.Pattern, text) {
			return true
		}
	}
	return false
}

func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(text, part)
		if !found {
			return false
		}
		text = after
	}
	return true
}

// merge sets the faults that f does not set to those of next.
func (f *Faults) merge(next Faults) {
	f.Hold = f.Hold || next.Hold
	take(&f.Delay, next.Delay)
	take(&f.Minor, next.Minor)
	take(&f.Invalid, next.Invalid)
	take(&f.Rate, next.Rate)
	take(&f.Exit, next.Exit)
	take(&f.Die, next.Die)
	take(&f.Storm, next.Storm)
}

func take[T comparable](field *T, next T) {
	var zero T
	if *field == zero {
		*field = next
	}
}
