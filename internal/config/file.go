package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// formatVersion is the only value of the file's own version key that this
// build reads. It changes when a key changes its meaning.
const formatVersion = 1

// maxUnknown bounds how many unknown keys one file is told about.
const maxUnknown = 20

// reader collects what one file says and everything that is wrong with it.
type reader struct {
	table    *Table
	file     string
	meta     toml.MetaData
	values   []Value
	problems []*Problem
	unknown  int
}

// parseFile reads the text of one file. With problems, the values are not to be
// used.
func parseFile(t *Table, file string, data []byte) ([]Value, []*Problem) {
	r := &reader{table: t, file: file}
	if line, text := shape(data); text != "" {
		r.problem(line, text)
		return nil, r.problems
	}
	var top map[string]toml.Primitive
	if err := r.decode(string(data), &top); err != nil {
		r.syntax(err)
		return nil, r.problems
	}
	r.walk("", top)
	if more := r.unknown - maxUnknown; more > 0 {
		r.problem(0, fmt.Sprintf("and %d more unknown keys", more))
	}
	byLine(r.problems)
	return r.values, r.problems
}

// decode guards against the parser's own panics, which it keeps for states
// that it believes cannot be.
func (r *reader) decode(data string, into any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the TOML reader failed: %v", p)
		}
	}()
	r.meta, err = toml.Decode(data, into)
	return err
}

func (r *reader) problem(line int, text string) {
	r.problems = append(r.problems, &Problem{File: r.file, Line: line, Text: text})
}

// syntax reports what is not TOML at all.
func (r *reader) syntax(err error) {
	if e, ok := errors.AsType[toml.ParseError](err); ok {
		text := "not valid TOML: " + clip(e.Message)
		if e.LastKey != "" {
			text += " (near " + quote(e.LastKey) + ")"
		}
		r.problem(max(1, e.Position.Line), oneLine(text))
		return
	}
	r.problem(0, oneLine(clip(err.Error())))
}

// walk goes through one table, whose dotted name with a dot behind is prefix.
func (r *reader) walk(prefix string, table map[string]toml.Primitive) {
	for _, name := range sortedKeys(table) {
		key, primitive := prefix+name, table[name]
		if strings.ContainsAny(name, ".") {
			// A quoted "a.b" is one word to TOML, not the path a.b.
			r.unknownKey(prefix+strconv.Quote(name), primitive)
			continue
		}
		switch s := r.table.Lookup(key); {
		case key == "version":
			r.version(primitive)
		case s != nil:
			r.setting(s, primitive)
		case name != "" && len(r.table.in(key)) > 0:
			var sub map[string]toml.Primitive
			if data, line := r.look(primitive); !isTable(data) {
				r.problem(line, fmt.Sprintf("%s is %s, accepted: a section [%s]", key, typeName(data), key))
			} else if r.meta.PrimitiveDecode(primitive, &sub) == nil {
				r.walk(key+".", sub)
			}
		default:
			r.unknownKey(key, primitive)
		}
	}
}

func (r *reader) version(primitive toml.Primitive) {
	data, line := r.look(primitive)
	if n, ok := data.(int64); !ok {
		r.problem(line, fmt.Sprintf("version is %s, accepted: %d", typeName(data), formatVersion))
	} else if n != formatVersion {
		r.problem(line, fmt.Sprintf("version = %d is not known to this build, accepted: %d", n, formatVersion))
	}
}

func (r *reader) setting(s *Setting, primitive toml.Primitive) {
	data, line := r.look(primitive)
	v, err := s.fromTOML(data)
	if err != nil {
		r.problem(line, s.complain(err))
		return
	}
	r.values = append(r.values, Value{s, v, Origin{File, r.file, line}})
}

func (r *reader) unknownKey(key string, primitive toml.Primitive) {
	// Finding a line costs a pass over the file, so only the first few are.
	if r.unknown++; r.unknown > maxUnknown {
		return
	}
	data, line := r.look(primitive)
	if isTable(data) {
		known := make([]string, 0, len(r.table.Sections))
		for _, s := range r.table.Sections {
			known = append(known, s.Name)
		}
		r.problem(line, "unknown section "+quote(key)+text.DidYouMean(key, known))
		return
	}
	known := []string{"version"}
	for i := range r.table.Settings {
		if s := &r.table.Settings[i]; !s.Hidden {
			known = append(known, s.Key)
		}
	}
	r.problem(line, "unknown key "+quote(key)+text.DidYouMean(key, known))
}

// finder is handed a value by the TOML library and refuses it, because the
// library tells the line of a value only in the error about it.
type finder struct{ data any }

func (f *finder) UnmarshalTOML(data any) error {
	f.data = data
	return errors.New("looked at")
}

// look returns a value in the library's plain types and the line it is on.
func (r *reader) look(primitive toml.Primitive) (data any, line int) {
	var f finder
	err := r.meta.PrimitiveDecode(primitive, &f)
	if e, ok := errors.AsType[toml.ParseError](err); ok {
		line = e.Position.Line
	}
	if line > 0 || !isTable(f.data) {
		return f.data, line
	}
	// The a of "a.b = 1" has no line of its own: take that of what is in it.
	var sub map[string]toml.Primitive
	if r.meta.PrimitiveDecode(primitive, &sub) == nil {
		for _, name := range sortedKeys(sub) {
			if _, line = r.look(sub[name]); line > 0 {
				break
			}
		}
	}
	return f.data, line
}

// oneLine makes a message of the library's fit a line of the log.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
}
