package volume

import (
	"slices"
	"strings"
)

// unresolved explains why text still names variables after the last pass.
func (v *variables) unresolved(text, left string, which scope) error {
	c := &chain{v: v, which: which, safe: map[string]int{}}
	for _, key := range v.named(text, which) {
		if c.follow(key) {
			return fault("variables refer to each other in a circle or too deep (%d levels are allowed): %s",
				maxPasses, strings.Join(c.path, " -> "))
		}
	}
	// A name that came together from two pieces; no chain shows it.
	return fault("variable %s is still there after %d passes", v.named(left, which)[0], maxPasses)
}

// chain looks for a way from variable to variable that is a circle or longer
// than maxPasses.
type chain struct {
	v     *variables
	which scope
	path  []string
	safe  map[string]int // deepest place, counted from 1, where a key was found harmless
}

func (c *chain) follow(key string) bool {
	circle := slices.Contains(c.path, key)
	c.path = append(c.path, key)
	if circle || len(c.path) > maxPasses {
		return true
	}
	depth := len(c.path)
	if c.safe[key] < depth {
		x, _ := c.v.match(key)
		for _, next := range c.v.named(x.value, c.which) {
			if c.follow(next) {
				return true
			}
		}
		c.safe[key] = depth
	}
	c.path = c.path[:depth-1]
	return false
}
