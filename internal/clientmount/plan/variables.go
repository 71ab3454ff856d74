package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

const (
	// maxPasses is how deep variables may refer to variables (contract
	// clientmountd.md 6.1). What is not resolved by then is an error.
	maxPasses = 6
	// maxLine is the longest text that a command line may become: the kernel
	// takes no longer single argument (MAX_ARG_STRLEN), and bash -c gets one.
	maxLine = 128<<10 - 1
	// maxOverrides and maxKey bound the profile's variableOverride.
	maxOverrides = 256
	maxKey       = 64
)

// variable is a name with its leading $ and what it stands for.
type variable struct {
	key, value string
	// text marks the administrator's own text, which may hold several words,
	// quotes and other variables. Anything else is data: one value, checked,
	// never split and free of variables.
	text bool
}

func data(key, value string) variable { return variable{key: key, value: value} }

// variables is a set with distinct keys, longest first, so that $DEVICE_LIST is
// never taken for $DEVICE followed by _LIST.
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

// with returns the set with one more variable, which beats all others.
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

// match returns the variable whose name s starts with, the longest if several.
func (v *variables) match(s string) (variable, bool) {
	for _, x := range v.list {
		if strings.HasPrefix(s, x.key) {
			return x, true
		}
	}
	return variable{}, false
}

// checkOverrides refuses keys that are no variables; the loops above rely on it.
func checkOverrides(overrides map[string]string) error {
	if len(overrides) > maxOverrides {
		return fault("the profile's variableOverride has %d entries, at most %d are allowed", len(overrides), maxOverrides)
	}
	for _, key := range slices.Sorted(maps.Keys(overrides)) {
		if name, ok := strings.CutPrefix(key, "$"); !ok || name == "" || len(key) > maxKey || !only(name, "_-") {
			return fault("the profile's variableOverride has a bad key %s: it is $ and a name of A-Z a-z 0-9 _ -", quote(key))
		}
	}
	return nil
}

func badOverride(key, value, rule string) *dws.ResourceError {
	return fault("the profile's variableOverride sets %s to %s, which cannot be used: %s", key, quote(value), rule)
}
