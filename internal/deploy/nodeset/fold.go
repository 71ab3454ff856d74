package nodeset

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fold returns a host list that expands to these names, each once. The list has at most most
// items (0: no limit), followed by the number of nodes that this leaves out; the ranges between
// two brackets count as that many items. Names must not contain commas or brackets.
func Fold(names []string, most int) string {
	items := fold(names)
	var texts []string
	left := 0
	limit := most
	for _, item := range items {
		shown := item
		if most > 0 {
			shown = item.head(limit)
		}
		if shown == nil {
			left += item.size()
			continue
		}
		texts = append(texts, shown.String())
		left, limit = left+item.size()-shown.size(), limit-shown.items()
	}
	text := strings.Join(texts, ",")
	if left > 0 {
		text += fmt.Sprintf(" and %d more", left)
	}
	return text
}

// pattern represents names that differ only in their numbers. It consists of text, number,
// text, ..., number, text, and expands to all combinations of the numbers.
type pattern struct {
	texts   []string
	numbers [][]string // digits as in the names, without duplicates
}

// fold merges names that differ in one number, starting with the last number, because names
// mostly differ in that one.
func fold(names []string) []*pattern {
	var items []*pattern
	seen := map[string]bool{}
	most := 0
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			p := parse(name)
			items, most = append(items, p), max(most, len(p.numbers))
		}
	}
	// Positions are counted from the end of the name, because names can have different
	// numbers of numbers.
	for back := 1; back <= most; back++ {
		byRest := map[string]*pattern{}
		var merged []*pattern
		for _, p := range items {
			at := len(p.numbers) - back
			if at < 0 {
				merged = append(merged, p)
				continue
			}
			key := p.without(at)
			if other := byRest[key]; other != nil {
				other.numbers[at] = append(other.numbers[at], p.numbers[at]...)
				continue
			}
			byRest[key] = p
			merged = append(merged, p)
		}
		for _, p := range merged {
			if at := len(p.numbers) - back; at >= 0 {
				slices.SortFunc(p.numbers[at], compare)
			}
		}
		items = merged
	}
	return items
}

// parse splits a name into texts and numbers.
func parse(name string) *pattern {
	p := new(pattern)
	text := ""
	for name != "" {
		digits := len(name) - len(strings.TrimLeft(name, "0123456789"))
		switch {
		case digits == 0:
			i := strings.IndexAny(name, "0123456789")
			if i < 0 {
				i = len(name)
			}
			text, name = text+name[:i], name[i:]
		case digits > maxDigit:
			text, name = text+name[:digits], name[digits:]
		default:
			p.texts, p.numbers = append(p.texts, text), append(p.numbers, []string{name[:digits]})
			text, name = "", name[digits:]
		}
	}
	p.texts = append(p.texts, text)
	return p
}

// without returns a key for the pattern without one of its numbers. Different patterns have
// different keys.
func (p *pattern) without(at int) string {
	var b strings.Builder
	for i, text := range p.texts {
		fmt.Fprintf(&b, "%d:%s", len(text), text)
		if i < len(p.numbers) && i != at {
			b.WriteString(strings.Join(p.numbers[i], ","))
		}
		b.WriteByte(';')
	}
	return b.String()
}

func (p *pattern) size() int {
	n := 1
	for _, numbers := range p.numbers {
		n *= len(numbers)
	}
	return n
}

// items returns the number of ranges between the brackets that have the most.
func (p *pattern) items() int {
	n := 1
	for _, numbers := range p.numbers {
		n = max(n, len(ranges(numbers)))
	}
	return n
}

// head returns the pattern with at most limit items, or nil.
func (p *pattern) head(limit int) *pattern {
	if limit <= 0 {
		return nil
	}
	short := &pattern{p.texts, slices.Clone(p.numbers)}
	for i, numbers := range short.numbers {
		if list := ranges(numbers); len(list) > limit {
			short.numbers[i] = slices.Concat(list[:limit]...)
		}
	}
	return short
}

func (p *pattern) String() string {
	var b strings.Builder
	for i, numbers := range p.numbers {
		b.WriteString(p.texts[i])
		if len(numbers) == 1 {
			b.WriteString(numbers[0])
		} else {
			var list []string
			for _, r := range ranges(numbers) {
				if last := r[len(r)-1]; last != r[0] {
					list = append(list, r[0]+"-"+last)
				} else {
					list = append(list, last)
				}
			}
			b.WriteString("[" + strings.Join(list, ",") + "]")
		}
	}
	b.WriteString(p.texts[len(p.texts)-1])
	return b.String()
}

// compare orders numbers by value, and equal values by width.
func compare(a, b string) int {
	x, _ := strconv.ParseUint(a, 10, 64)
	y, _ := strconv.ParseUint(b, 10, 64)
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(len(a), len(b)))
}

// ranges splits sorted numbers into those that belong to one range.
func ranges(numbers []string) (list [][]string) {
	left := make(map[string]bool, len(numbers))
	for _, n := range numbers {
		left[n] = true
	}
	for _, first := range numbers {
		var one []string
		for next := first; left[next]; next = successor(first, next) {
			delete(left, next)
			one = append(one, next)
		}
		if one != nil {
			list = append(list, one)
		}
	}
	return list
}

// successor returns the number after digits in the range that starts with first, with the
// padding of that range.
func successor(first, digits string) string {
	value, _ := strconv.ParseUint(digits, 10, 64)
	width := 0
	if padded(first) {
		width = len(first)
	}
	return numbers{width: width}.text(value + 1)
}
