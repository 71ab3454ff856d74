package nodeset

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fold returns a host list that expands to these names, each once, of at most so many items;
// 0 is no limit. If that leaves nodes out, their number follows. Names must not have commas
// or brackets in them.
func Fold(names []string, most int) string {
	items := fold(names)
	var texts []string
	left := 0
	for i, item := range items {
		if most > 0 && i >= most {
			left += item.size()
			continue
		}
		texts = append(texts, item.String())
	}
	text := strings.Join(texts, ",")
	if left > 0 {
		text += fmt.Sprintf(" and %d more", left)
	}
	return text
}

// pattern is names that differ in their numbers only: text, number, text, ...,
// number, text. It expands to all combinations of the numbers.
type pattern struct {
	texts   []string
	numbers [][]string // digits as in the names, each different from the others
}

// fold merges names along one number after the other, the last one first: names
// mostly differ in that.
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
	// Counted from the end of the name, so that names with a different number of
	// numbers do not get in each other's way.
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

// without returns the pattern without one of its numbers as a key, which is different for
// different patterns.
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

func (p *pattern) String() string {
	var b strings.Builder
	for i, numbers := range p.numbers {
		b.WriteString(p.texts[i])
		if len(numbers) == 1 {
			b.WriteString(numbers[0])
		} else {
			b.WriteString("[" + ranges(numbers) + "]")
		}
	}
	b.WriteString(p.texts[len(p.texts)-1])
	return b.String()
}

// compare sorts by value, and numbers of the same value by their width.
func compare(a, b string) int {
	x, _ := strconv.ParseUint(a, 10, 64)
	y, _ := strconv.ParseUint(b, 10, 64)
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(len(a), len(b)))
}

// ranges returns the text in brackets for sorted numbers.
func ranges(numbers []string) string {
	left := make(map[string]bool, len(numbers))
	for _, n := range numbers {
		left[n] = true
	}
	var list []string
	for _, first := range numbers {
		if !left[first] {
			continue
		}
		last := first
		for next := first; left[next]; next = successor(first, next) {
			delete(left, next)
			last = next
		}
		if last == first {
			list = append(list, first)
		} else {
			list = append(list, first+"-"+last)
		}
	}
	return strings.Join(list, ",")
}

// successor returns the next number in the range that starts with first, with the padding
// of that range.
func successor(first, digits string) string {
	value, _ := strconv.ParseUint(digits, 10, 64)
	width := 0
	if padded(first) {
		width = len(first)
	}
	return numbers{width: width}.text(value + 1)
}
