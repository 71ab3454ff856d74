package plan

import (
	"slices"
	"strings"
)

// unresolved explains why text still names variables after the last pass.
func (v *variables) unresolved(text, left string, which scope) error {
	for _, key := range v.named(text, which) {
		if way := v.endless(key, nil, which); way != nil {
			return fault("variables refer to each other in a circle or too deep (%d levels are allowed): %s",
				maxPasses, strings.Join(way, " -> "))
		}
	}
	// A name that came together from two pieces; no chain shows it.
	return fault("variable %s is still there after %d passes", v.named(left, which)[0], maxPasses)
}

// endless returns a way from key on to variable after variable that closes a
// circle or is longer than maxPasses, or nil. There are no more ways to try than
// there were variables in the passes before, and maxLine bounded those.
func (v *variables) endless(key string, way []string, which scope) []string {
	circle := slices.Contains(way, key)
	way = append(way, key)
	if circle || len(way) > maxPasses {
		return way
	}
	x, _ := v.match(key)
	for _, next := range v.named(x.value, which) {
		if found := v.endless(next, way, which); found != nil {
			return found
		}
	}
	return nil
}
