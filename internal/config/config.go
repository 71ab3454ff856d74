// Package config reads settings in layers and documents them. From one table it
// derives the keys of the TOML file, the environment variables, the flags, their help,
// the commented default file and the dump of the values in effect.
//
// Each layer overrides the layers before it: defaults, the main file, its drop-in
// directory in lexical order, the environment, flags. Every value has its origin, and
// every error has the file and line, the variable or the flag.
//
// The package must not know which settings a daemon has or what they do. It opens no
// connection and changes no process-wide state.
package config

import (
	"slices"
	"strings"
)

// Kind is the type of a setting.
type Kind int

// The kinds, with the TOML type in the file.
const (
	String   Kind = iota // a string; the field is of a string type
	Bool                 // true or false; the field is a bool
	Int                  // an integer; the field is an int, int64 or float
	Port                 // a TCP port, as an integer or a string, or ""; the field is of a string type
	Duration             // a string with a unit, "1h30m"; the field is a time.Duration
	Size                 // bytes, as a string with a unit, "20MiB", or an integer; the field is as for Int
	Strings              // an array of strings; the field is a []string
	Enum                 // one of Setting.Values, as a string; the field is of a string type
)

// Noun returns the name of the kind in help and messages.
func (k Kind) Noun() string {
	return [...]string{"string", "boolean", "integer", "port", "duration", "size", "list", "word"}[k]
}

// Setting describes one setting. Texts (Default, Min, Max and what Env.Convert
// returns) use the syntax of a flag: bare words, lists separated by commas.
type Setting struct {
	Key     string           // dotted TOML key; a key without a dot is above all sections
	Flag    string           // long flag without dashes; "": no flag
	Env     []Env            // environment variables; the first one that is set and applies is used
	Kind    Kind             //
	Default string           //
	Values  []string         // Enum: valid values
	Words   map[string]int64 // Int, Size: words accepted in place of a number
	Min     string           // Int, Duration, Size: minimum
	Max     string           // Int, Duration, Size: maximum
	Help    string           // one or more sentences, with a full stop
	Unit    string           // placeholder of the value in the help; default: the kind in capitals

	Switches []Switch // flags without a value that set this setting

	Reload bool // takes effect on reload; other settings need a restart

	// Check validates a value of the right kind and range: a string, bool, int, int64,
	// time.Duration or []string. Its error says which values are accepted.
	Check func(value any) error

	// Field points at the field that receives the value, of the type for Kind. It
	// should be the field that the consumer of the setting reads, so that no copy is
	// needed. An encoding.TextUnmarshaler gets the value in the syntax of a flag, after
	// Check.
	Field any
}

// Env is an environment variable that sets a setting. An empty value counts as unset.
type Env struct {
	Name string

	// Convert converts the value of the variable into the text of the setting. It
	// returns use = false if the value does not apply to this setting. nil: the value
	// is used unchanged.
	Convert func(value string) (text string, use bool, err error)

	Presence bool // the variable applies even if its value is empty
	Lenient  bool // an invalid value is a warning, not an error
}

// Switch is a flag without a value that sets a setting to Value.
type Switch struct{ Flag, Value string }

// Legacy is a flag of earlier versions that is accepted and ignored.
type Legacy struct {
	Flag   string
	Bool   bool   // takes no value
	Advice string // what to use instead
}

// Notice is an environment variable that causes a warning if it is set.
type Notice struct{ Name, Text string }

// Section is a table of the file; Name is without brackets.
type Section struct{ Name, Help string }

// Command is a line of the synopsis of a program.
type Command struct {
	Words   string // "config check"; "start|stop": two commands; "": no sub-command
	Option  string // "-o json": option of this command only
	Flags   bool   // the flags of the settings may follow
	Meaning string // description, without a capital and a full stop
}

// Usage returns the command line.
func (c Command) Usage(program string) string {
	line := program
	for _, part := range []string{c.Words, c.Option} {
		if part != "" {
			line += " " + part
		}
	}
	if c.Flags {
		line += " [flags]"
	}
	return line
}

// Each returns the command, or one command for each of its words "start|stop".
func (c Command) Each() (list []Command) {
	i := strings.LastIndexByte(c.Words, ' ') + 1
	for word := range strings.SplitSeq(c.Words[i:], "|") {
		one := c
		one.Words = c.Words[:i] + word
		list = append(list, one)
	}
	return list
}

// Table has all settings of one program.
type Table struct {
	Program  string // name of the binary, for messages
	Summary  string // description, one sentence
	Synopsis []Command
	File     string // default path of the main file

	Sections []Section // in display order
	Settings []Setting
	Legacy   []Legacy
	Notices  []Notice
}

// Lookup returns the setting with the given key, or nil.
func (t *Table) Lookup(key string) *Setting {
	i := slices.IndexFunc(t.Settings, func(s Setting) bool { return s.Key == key })
	if i < 0 {
		return nil
	}
	return &t.Settings[i]
}

// section and name return the two parts of the key: "mount", "command_timeout".
func (s *Setting) section() string {
	before, _, found := strings.Cut(s.Key, ".")
	if !found {
		return ""
	}
	return before
}

func (s *Setting) name() string {
	return s.Key[strings.LastIndexByte(s.Key, '.')+1:]
}

// in returns the settings of a section, in the order of the table.
func (t *Table) in(section string) []*Setting {
	var out []*Setting
	for i := range t.Settings {
		if t.Settings[i].section() == section {
			out = append(out, &t.Settings[i])
		}
	}
	return out
}
