package plan

import (
	"slices"
	"strings"
)

// scope selects which variables a pass replaces; all are recognised.
type scope int

const (
	everything scope = iota
	textOnly
	dataOnly
)

func (s scope) takes(x variable) bool { return s == everything || (s == textOnly) == x.text }

// expand replaces variables until none is left, in at most maxPasses passes.
// Unknown ones stay. The error says which variables refer to each other.
func (v *variables) expand(s string, which scope) (string, error) {
	if len(s) > maxLine {
		return "", fault("a line of %d bytes is too long, at most %d are allowed", len(s), maxLine)
	}
	out := s
	for range maxPasses {
		next, changed, err := v.pass(out, which)
		if err != nil || !changed {
			return out, err
		}
		out = next
	}
	if !v.has(out, which) {
		return out, nil
	}
	return "", v.unresolved(s, out, which)
}

// pass replaces each variable once, from left to right.
func (v *variables) pass(s string, which scope) (string, bool, error) {
	if strings.IndexByte(s, '$') < 0 {
		return s, false, nil
	}
	var b strings.Builder
	changed := false
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		x, known := v.match(s)
		switch {
		case !known:
			b.WriteByte('$')
			s = s[1:]
		case which.takes(x):
			b.WriteString(x.value)
			s = s[len(x.key):]
			changed = true
		default:
			b.WriteString(x.key)
			s = s[len(x.key):]
		}
		if b.Len() > maxLine {
			break
		}
	}
	if b.Len() > maxLine {
		return "", false, fault("variables expand to more than %d bytes", maxLine)
	}
	return b.String(), changed, nil
}

// has tells whether s names a variable of the scope.
func (v *variables) has(s string, which scope) bool { return len(v.named(s, which)) > 0 }

// named returns the keys of the scope in s, in order, each once.
func (v *variables) named(s string, which scope) []string {
	var out []string
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			return out
		}
		s = s[i:]
		x, ok := v.match(s)
		if !ok {
			s = s[1:]
			continue
		}
		if which.takes(x) && !slices.Contains(out, x.key) {
			out = append(out, x.key)
		}
		s = s[len(x.key):]
	}
}
