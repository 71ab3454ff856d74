package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

const (
	// maxPasses is how deeply variables may refer to variables. A variable that remains
	// after this number of passes is an error.
	maxPasses = 6
	// maxLine is the maximum length of an expanded command line: the kernel's limit for
	// a single argument (MAX_ARG_STRLEN), since bash -c gets the line as one argument.
	maxLine = 128<<10 - 1
	// maxOverrides and maxKey bound the profile's variableOverride.
	maxOverrides = 256
	maxKey       = 64
)

// variable is a name with its leading $ and its value.
type variable struct {
	key, value string
	// text marks the administrator's own text, which may contain several words, quotes
	// and other variables. Anything else is data: one checked value that is never split
	// and contains no variables.
	text bool
}

func data(key, value string) variable { return variable{key: key, value: value} }

// variables is a set with distinct keys, longest first, so that $DEVICE_LIST is never
// read as $DEVICE followed by _LIST.
type variables struct{ list []variable }

// newVariables returns the data with the administrator's overrides on top.
func newVariables(values []variable, overrides map[string]string) *variables {
	v := &variables{list: make([]variable, 0, len(values)+len(overrides)+1)}
	for _, d := range values {
		if _, ok := overrides[d.key]; !ok {
			v.list = append(v.list, d)
		}
	}
	for key, value := range overrides {
		v.list = append(v.list, variable{key: key, value: value, text: true})
	}
	slices.SortFunc(v.list, longestFirst)
	return v
}

// with returns the set with one more variable, which replaces one with the same key.
func (v *variables) with(key, value string, text bool) *variables {
	list := make([]variable, 0, len(v.list)+1)
	for _, x := range v.list {
		if x.key != key {
			list = append(list, x)
		}
	}
	x := variable{key: key, value: value, text: text}
	i, _ := slices.BinarySearchFunc(list, x, longestFirst)
	return &variables{list: slices.Insert(list, i, x)}
}

func longestFirst(a, b variable) int {
	if d := len(b.key) - len(a.key); d != 0 {
		return d
	}
	return strings.Compare(a.key, b.key)
}

// match returns the variable with the longest key that s starts with.
func (v *variables) match(s string) (variable, bool) {
	for _, x := range v.list {
		if strings.HasPrefix(s, x.key) {
			return x, true
		}
	}
	return variable{}, false
}

// checkOverrides returns an error for keys that are not variables; the functions above
// rely on it.
func checkOverrides(overrides map[string]string) error {
	if len(overrides) > maxOverrides {
		return fault("the profile's variableOverride has %d entries, at most %d are allowed", len(overrides), maxOverrides)
	}
	for _, key := range slices.Sorted(maps.Keys(overrides)) {
		if name, ok := strings.CutPrefix(key, "$"); !ok || name == "" || len(key) > maxKey || !text.Only(name, "_-") {
			return fault("the profile's variableOverride has the invalid key %s: a key is $ followed by characters of A-Z a-z 0-9 _ -", text.Quote(key))
		}
	}
	return nil
}

func badOverride(key, value, rule string) *dws.ResourceError {
	return fault("the profile's variableOverride sets %s to the invalid value %s: %s", key, text.Quote(value), rule)
}

// scope selects the variables that a pass replaces. A pass recognises all variables.
type scope int

const (
	everything scope = iota
	textOnly
	dataOnly
)

func (s scope) takes(x variable) bool { return s == everything || (s == textOnly) == x.text }

// expand replaces variables until none is left, in at most maxPasses passes. Unknown
// variables stay. The error names the variables that refer to each other.
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

// has reports whether s contains a variable of the scope.
func (v *variables) has(s string, which scope) bool { return len(v.named(s, which)) > 0 }

// named returns the keys of the scope in s, in order and without duplicates.
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

// unresolved returns the error for a text that still contains variables after the last
// pass.
func (v *variables) unresolved(text, left string, which scope) error {
	for _, key := range v.named(text, which) {
		if chain := v.findChain(key, nil, which); chain != nil {
			return fault("variables refer to each other in a cycle or too deeply (at most %d levels are allowed): %s",
				maxPasses, strings.Join(chain, " -> "))
		}
	}
	// The name was joined from two values, so there is no chain of variables.
	return fault("variable %s remains after %d passes of expansion", v.named(left, which)[0], maxPasses)
}

// findChain returns a chain of variables that starts with key and is a cycle or longer
// than maxPasses, or nil. The number of chains to try is at most that of the variables in
// the previous passes, which maxLine bounds.
func (v *variables) findChain(key string, chain []string, which scope) []string {
	cycle := slices.Contains(chain, key)
	chain = append(chain, key)
	if cycle || len(chain) > maxPasses {
		return chain
	}
	x, _ := v.match(key)
	for _, next := range v.named(x.value, which) {
		if found := v.findChain(next, chain, which); found != nil {
			return found
		}
	}
	return nil
}
