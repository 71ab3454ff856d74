package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// formatVersion is the only value of the key version that this build accepts. It
// changes when a key changes its meaning.
const formatVersion = 1

// maxUnknown limits the unknown keys that are reported for one file.
const maxUnknown = 20

// reader collects the values and the problems of one file.
type reader struct {
	table    *Table
	file     string
	meta     toml.MetaData
	values   []Value
	problems []*Problem
	unknown  int
}

// parseFile reads the text of one file. If there are problems, the values must not
// be used.
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

// decode parses the file. It converts panics of the parser, which reports internal
// errors by them, into errors.
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

// syntax reports text that is not TOML.
func (r *reader) syntax(err error) {
	if e, ok := errors.AsType[toml.ParseError](err); ok {
		message := "not valid TOML: " + text.Clip(e.Message, maxMessage)
		if e.LastKey != "" {
			message += " (near " + text.Quote(e.LastKey) + ")"
		}
		r.problem(max(1, e.Position.Line), oneLine(message))
		return
	}
	r.problem(0, oneLine(text.Clip(err.Error(), maxMessage)))
}

// walk reads one table. prefix is its dotted name and a dot.
func (r *reader) walk(prefix string, table map[string]toml.Primitive) {
	for _, name := range sortedKeys(table) {
		key, primitive := prefix+name, table[name]
		if strings.ContainsAny(name, ".") {
			// In TOML, a quoted "a.b" is one key, not the path a.b.
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
		r.problem(line, fmt.Sprintf("version = %d is not supported by this build, accepted: %d", n, formatVersion))
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
	// Finding a line requires a pass over the file, so only the first keys are looked up.
	if r.unknown++; r.unknown > maxUnknown {
		return
	}
	data, line := r.look(primitive)
	if isTable(data) {
		known := make([]string, 0, len(r.table.Sections))
		for _, s := range r.table.Sections {
			known = append(known, s.Name)
		}
		r.problem(line, "unknown section "+text.Quote(key)+text.DidYouMean(key, known))
		return
	}
	known := []string{"version"}
	for i := range r.table.Settings {
		known = append(known, r.table.Settings[i].Key)
	}
	r.problem(line, "unknown key "+text.Quote(key)+text.DidYouMean(key, known))
}

// maxMessage limits a message of the TOML library, in bytes, because the library
// quotes invalid text completely.
const maxMessage = 300

// finder receives a value from the TOML library and returns an error, because the
// library reports the line of a value only in errors.
type finder struct{ data any }

func (f *finder) UnmarshalTOML(data any) error {
	f.data = data
	return errors.New("value found")
}

// look returns a value in the plain types of the library, and its line.
func (r *reader) look(primitive toml.Primitive) (data any, line int) {
	var f finder
	err := r.meta.PrimitiveDecode(primitive, &f)
	if e, ok := errors.AsType[toml.ParseError](err); ok {
		line = e.Position.Line
	}
	if line > 0 || !isTable(f.data) {
		return f.data, line
	}
	// The a of "a.b = 1" has no line: use the line of the first value in it.
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

// oneLine replaces control characters in a message of the TOML library by spaces.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
}

// Limits of what is read. A real file has a few kilobytes.
const (
	maxFile    = 1 << 20
	maxDropIns = 256
)

// readFile returns the text of a configuration file, and found = false if it does not
// exist. It accepts only a regular file of at most maxFile bytes that is not
// world-writable. It never blocks.
func readFile(path string) (data []byte, found bool, problem *Problem) {
	wrong := func(format string, args ...any) ([]byte, bool, *Problem) {
		return nil, true, &Problem{File: path, Text: fmt.Sprintf(format, args...)}
	}
	if path == os.DevNull {
		return nil, true, nil // no file, by convention
	}
	// O_NONBLOCK: do not wait for the writer of a named pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return wrong("cannot be read: %v", cause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return wrong("cannot be read: %v", cause(err))
	case info.IsDir():
		return wrong("is a directory, accepted: a file")
	case !info.Mode().IsRegular():
		return wrong("is not a regular file")
	case safepath.EntryOf(info).WritableBy(safepath.Everybody):
		return wrong("is world-writable, so it is not trusted (chmod o-w)")
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return wrong("cannot be read: %v", cause(err))
	case len(data) > maxFile:
		return wrong("is larger than 1 MiB, which is too large for a configuration file")
	}
	return data, true, nil
}

// cause removes the path from err, because the caller prints it.
func cause(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// dropIns returns dir/*.toml in lexical order, without hidden files, which editors
// create. If the directory does not exist, it returns nothing.
func dropIns(dir string) ([]string, *Problem) {
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Problem{File: dir, Text: fmt.Sprintf("cannot be listed: %v", cause(err))}
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	if len(paths) > maxDropIns {
		return nil, &Problem{File: dir, Text: fmt.Sprintf("contains %d files, accepted: at most %d", len(paths), maxDropIns)}
	}
	return paths, nil
}

// Limits of the structure of a file. A configuration needs one level of tables and
// one level of arrays. The parser takes quadratic time for nested values.
const (
	maxBraces   = 256  // in the whole file
	maxBrackets = 8192 // in the whole file
	maxDots     = 256  // in one line
)

// shape returns the first line that is not UTF-8 or is nested too deeply, and the
// reason. It accepts any UTF-8 text in comment lines.
func shape(data []byte) (line int, text string) {
	braces, brackets := 0, 0
	for l := range bytes.Lines(data) {
		line++
		if !utf8.Valid(l) {
			return line, "is not UTF-8"
		}
		if bytes.HasPrefix(bytes.TrimLeft(l, " \t"), []byte("#")) {
			continue
		}
		braces += bytes.Count(l, []byte("{"))
		brackets += bytes.Count(l, []byte("["))
		if braces > maxBraces || brackets > maxBrackets || bytes.Count(l, []byte(".")) > maxDots {
			return line, "nested too deeply for a configuration file"
		}
	}
	return 0, ""
}

// fromTOML checks a value of the file, in the plain types of the library, and returns
// it in the Go type of its kind.
func (s *Setting) fromTOML(data any) (any, error) {
	v, ok, err := s.typed(data)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s where %s is expected, accepted: %s", typeName(data), withArticle(s.Kind.Noun()), s.example())
	}
	return v, s.accept(v)
}

// typed returns ok = false for a value of the wrong TOML type. Files are stricter than
// flags: "5" is not an integer.
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

// example describes how to write a value of the kind in the file.
func (s *Setting) example() string {
	switch s.Kind {
	case Bool:
		return "true or false"
	case Int:
		return "a number without quotes" + s.orWords()
	case Port:
		return `for example 6443`
	case Duration:
		return `a quoted string, for example "30s", "5m" or "1h30m"`
	case Size:
		return `a quoted string, for example "20MiB", or a number of bytes` + s.orWords()
	case Strings:
		return `a list of strings, for example ["/a", "/b"]`
	case Enum:
		return `"` + strings.Join(s.Values, `", "`) + `"`
	default:
		return "a quoted string"
	}
}

// typeName returns the name of the TOML type of data for messages.
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
