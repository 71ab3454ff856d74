package config

import (
	"fmt"
	"strconv"
	"strings"
)

// fromTOML checks a value of the file, in the library's plain types, and
// returns it in the Go type of its kind.
func (s *Setting) fromTOML(data any) (any, error) {
	v, ok, err := s.typed(data)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s where %s is wanted, accepted: %s", typeName(data), withArticle(s.Kind.Noun()), s.example())
	}
	return v, s.accept(v)
}

// typed answers ok = false for a value of the wrong TOML type. The file is
// stricter than a flag: "5" is not 5, so that a reader can trust what it says.
func (s *Setting) typed(data any) (v any, ok bool, err error) {
	switch data := data.(type) {
	case string:
		switch s.Kind {
		case String, Enum, Port, Duration, Size:
			v, err = s.convert(data)
			return v, true, err
		case Int:
			n, isWord := s.Words[data]
			return int(n), isWord, nil
		}
	case int64:
		switch s.Kind {
		case Int:
			if int64(int(data)) != data {
				return nil, true, fmt.Errorf("%d is out of range", data)
			}
			return int(data), true, nil
		case Port:
			return strconv.FormatInt(data, 10), true, nil
		case Size:
			if data < 0 {
				return nil, true, fmt.Errorf("%d is negative, accepted: %s", data, s.example())
			}
			return data, true, nil
		}
	case bool:
		return data, s.Kind == Bool, nil
	case []any:
		if s.Kind != Strings {
			return nil, false, nil
		}
		list := make([]string, len(data))
		for i, item := range data {
			if list[i], ok = item.(string); !ok {
				return nil, true, fmt.Errorf("%s in the list, accepted: %s", typeName(item), s.example())
			}
		}
		return list, true, nil
	}
	return nil, false, nil
}

// example says by one value how the kind is written in the file.
func (s *Setting) example() string {
	switch s.Kind {
	case Bool:
		return "true or false"
	case Int:
		return "a number without quotes" + s.orWords()
	case Port:
		return `for example 6443`
	case Duration:
		return `a text in quotes, for example "30s", "5m" or "1h30m"`
	case Size:
		return `a text in quotes, for example "20MiB", or a number of bytes` + s.orWords()
	case Strings:
		return `a list of texts, for example ["/a", "/b"]`
	case Enum:
		return `"` + strings.Join(s.Values, `", "`) + `"`
	default:
		return "a text in quotes"
	}
}

// typeName is what an administrator calls the TOML type of data.
func typeName(data any) string {
	switch data.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a number with a fraction"
	case bool:
		return "a boolean"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a date or time"
}

func isTable(data any) bool {
	_, ok := data.(map[string]any)
	return ok
}

func withArticle(noun string) string {
	if noun == "integer" {
		return "an " + noun
	}
	return "a " + noun
}
