// Package nodeset expands and folds host lists, the compact form for many node names that
// Slurm, pdsh and ClusterShell use: compute-[01-20,30].
//
// It must not depend on which nodes exist, or on what a valid node name is.
package nodeset

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of the expansion of a host list.
const (
	MaxNodes = 1 << 16 // names in one list
	MaxName  = 253     // bytes in one name, as in DNS
	maxDigit = 18      // digits in one number, so that its value has at most 64 bits
)

// errTooMany is the error for a host list that expands to more than MaxNodes names.
var errTooMany = fmt.Errorf("it expands to more than %d nodes", MaxNodes)

// Expand returns the names to which a host list expands, in this order, each once.
//
// A list consists of names separated by commas. A name may contain brackets with numbers
// and ranges of numbers, at any position and more than once. A leading zero pads all
// numbers of a range to the width of the first: [08-11] expands to 08, 09, 10 and 11.
func Expand(list string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for rest, more := list, true; more; {
		var item string
		var err error
		if item, rest, more, err = cut(rest); err != nil {
			return nil, fmt.Errorf("host list %.80q: %w", list, err)
		}
		if err := expandItem(item, func(name string) error {
			if seen[name] {
				return nil
			}
			if len(names) == MaxNodes {
				return errTooMany
			}
			seen[name] = true
			names = append(names, name)
			return nil
		}); err != nil {
			return nil, fmt.Errorf("host list %.80q: %w", list, err)
		}
	}
	return names, nil
}

// ExpandAll is Expand for several lists.
func ExpandAll(lists []string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, list := range lists {
		expanded, err := Expand(list)
		if err != nil {
			return nil, err
		}
		for _, name := range expanded {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
		if len(names) > MaxNodes {
			return nil, fmt.Errorf("the host lists expand to more than %d nodes", MaxNodes)
		}
	}
	return names, nil
}

// cut splits a list at its first comma outside brackets.
func cut(list string) (item, rest string, more bool, err error) {
	inside := false
	for i := range len(list) {
		switch c := list[i]; {
		case c == '[' && inside:
			return "", "", false, errors.New("brackets inside brackets")
		case c == '[':
			inside = true
		case c == ']' && !inside:
			return "", "", false, errors.New("] without [")
		case c == ']':
			inside = false
		case c == ',' && !inside:
			return list[:i], list[i+1:], true, nil
		}
	}
	if inside {
		return "", "", false, errors.New("[ without ]")
	}
	return list, "", false, nil
}

// numbers is one range inside brackets.
type numbers struct {
	first, last uint64
	width       int // minimum number of digits; 0: no padding
}

func (n numbers) text(value uint64) string { return fmt.Sprintf("%0*d", n.width, value) }

// part is a text, followed by brackets unless it is the last part of a name.
type part struct {
	text   string
	ranges []numbers
}

// expandItem calls each for all names of one item. The brackets of the item are balanced.
func expandItem(item string, each func(name string) error) error {
	var parts []part
	for rest := item; ; {
		text, after, found := strings.Cut(rest, "[")
		if !found {
			parts = append(parts, part{text: text})
			break
		}
		inside, behind, _ := strings.Cut(after, "]")
		ranges, err := parseRanges(inside)
		if err != nil {
			return err
		}
		parts = append(parts, part{text, ranges})
		rest = behind
	}
	if item == "" {
		return errors.New("a name is empty")
	}
	// Check the number of names and the longest name before allocating anything.
	total, length := uint64(1), 0
	for _, p := range parts {
		length += len(p.text)
		if p.ranges == nil {
			continue
		}
		count, digits := uint64(0), 0
		for _, r := range p.ranges {
			count += r.last - r.first + 1 // no overflow: below 1e18 each, and a few hundred thousand at most
			digits = max(digits, len(r.text(r.last)))
			if count > MaxNodes {
				return errTooMany
			}
		}
		if total *= count; total > MaxNodes {
			return errTooMany
		}
		length += digits
	}
	if length > MaxName {
		return fmt.Errorf("a name has more than %d characters", MaxName)
	}
	return product("", parts, each)
}

func product(prefix string, parts []part, each func(string) error) error {
	prefix += parts[0].text
	if len(parts) == 1 {
		return each(prefix)
	}
	for _, r := range parts[0].ranges {
		for value := r.first; value <= r.last; value++ {
			if err := product(prefix+r.text(value), parts[1:], each); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseRanges parses the text in brackets.
func parseRanges(text string) ([]numbers, error) {
	var list []numbers
	for item := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		r := numbers{}
		var err error
		if r.first, err = parseNumber(first); err != nil {
			return nil, err
		}
		if r.last, err = parseNumber(last); err != nil {
			return nil, err
		}
		if padded(first) {
			r.width = len(first)
		}
		switch {
		case r.last < r.first:
			return nil, fmt.Errorf("the range %.40q runs backwards", item)
		case len(last) < len(first), len(last) > len(first) && padded(last):
			return nil, fmt.Errorf("the ends of the range %.40q are padded to different widths", item)
		}
		list = append(list, r)
	}
	return list, nil
}

// padded reports whether a number has a leading zero.
func padded(digits string) bool { return len(digits) > 1 && digits[0] == '0' }

func parseNumber(text string) (uint64, error) {
	if text == "" || len(text) > maxDigit || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%.40q in brackets is not a number of at most %d digits", text, maxDigit)
	}
	return strconv.ParseUint(text, 10, 64)
}
