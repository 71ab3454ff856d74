package apiclient

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Field returns the value at a dotted path of an object, and whether it exists. The
// path has names of fields and indices of list elements, starting from 0; a dot in a
// name is written "\.". Strings are returned unchanged, other values as JSON.
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
