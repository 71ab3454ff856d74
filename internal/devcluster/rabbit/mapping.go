package rabbit

import (
	"fmt"
	"strings"
)

// Mapping replaces a directory of a rabbit by a directory of this machine, so that
// several rabbits can run on one machine.
type Mapping struct{ From, To string }

// ParseMapping parses FROM=TO, two absolute paths. It ignores trailing slashes.
func ParseMapping(text string) (Mapping, error) {
	from, to, ok := strings.Cut(text, "=")
	if !ok || !strings.HasPrefix(from, "/") || !strings.HasPrefix(to, "/") {
		return Mapping{}, fmt.Errorf("%q: expected /FROM=/TO", text)
	}
	return Mapping{strings.TrimRight(from, "/"), strings.TrimRight(to, "/")}, nil
}

// mapped replaces the longest From that contains the path, by path component. The rest
// stays byte for byte, so that tests see the effect of a user's text on a path.
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
