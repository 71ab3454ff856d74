package rabbit

import (
	"fmt"
	"strings"
)

// Mapping puts a directory of this machine where a rabbit has another, so that
// several rabbits can work on one machine.
type Mapping struct{ From, To string }

// ParseMapping reads FROM=TO, both absolute; a slash at an end means nothing.
func ParseMapping(text string) (Mapping, error) {
	from, to, ok := strings.Cut(text, "=")
	if !ok || !strings.HasPrefix(from, "/") || !strings.HasPrefix(to, "/") {
		return Mapping{}, fmt.Errorf("%q: want /FROM=/TO", text)
	}
	return Mapping{strings.TrimRight(from, "/"), strings.TrimRight(to, "/")}, nil
}

// mapped replaces the longest From that the path lies in, by path component.
// The rest stays to the byte: what a user's text does to a path is what tests
// want to see.
func mapped(path string, maps []Mapping) string {
	best := Mapping{}
	found := false
	for _, m := range maps {
		if (path == m.From || strings.HasPrefix(path, m.From+"/")) && (!found || len(m.From) > len(best.From)) {
			best, found = m, true
		}
	}
	if !found {
		return path
	}
	return best.To + strings.TrimPrefix(path, best.From)
}
