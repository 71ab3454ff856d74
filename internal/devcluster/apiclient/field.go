package apiclient

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Field follows a dotted path through an object: names of fields and numbers of
// list elements counted from 0; a dot in a name is written "\.". It returns the
// value as text (strings as they are, everything else as JSON) and whether it
// is there.
func Field(object map[string]any, path string) (string, bool) {
	var at any = object
	for _, name := range splitPath(path) {
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[name]
			if !ok {
				return "", false
			}
			at = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v) {
				return "", false
			}
			at = v[i]
		default:
			return "", false
		}
	}
	if s, ok := at.(string); ok {
		return s, true
	}
	text, err := json.Marshal(at)
	if err != nil {
		return fmt.Sprint(at), true
	}
	return string(text), true
}

func splitPath(path string) []string {
	const dot = "\x00" // cannot occur in a field name
	parts := strings.Split(strings.ReplaceAll(path, `\.`, dot), ".")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], dot, ".")
	}
	return parts
}
