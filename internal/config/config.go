// Package config turns one table of settings into everything that describes them:
// the keys of the TOML file, environment names, flags, their help, the commented
// default file and the dump of the values in effect.
//
// Each later layer wins: defaults, the main file, its drop-in directory in
// lexical order, the environment, flags. Every value remembers the layer that it
// came from, and every error names the file and line, variable or flag to correct.
//
// The package knows what a setting looks like and where it may be given. It must
// not know which settings a daemon has or what they do: it opens no connection and
// changes no process-wide state.
package config

import (
	"slices"
	"strings"
)

// Kind is the form that a setting's value takes.
type Kind int

// The kinds, with the TOML type that the file must use for each.
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

// Noun is the word for a value of the kind in help and messages.
func (k Kind) Noun() string {
	return [...]string{"string", "boolean", "integer", "port", "duration", "size", "list", "word"}[k]
}

// Setting describes one setting. Texts (Default, Min, Max and what Env.Convert
// returns) use the syntax of a flag: bare words, lists separated by commas.
type Setting struct {
	Key     string           // dotted TOML key; a key without a dot is above all sections
	Flag    string           // long flag without dashes; "" for none
	Env     []Env            // environment names, the first that is present and applies wins
	Kind    Kind             //
	Default string           //
	Values  []string         // Enum: what is accepted
	Words   map[string]int64 // Int, Size: words accepted in place of a number
	Min     string           // Int, Duration, Size: least value accepted
	Max     string           // Int, Duration, Size: greatest value accepted
	Help    string           // one sentence or more, ending in a full stop
	Unit    string           // placeholder of the value in flag help; by default the kind, in capitals

	Switches []Switch // flags without a value that mean one value of this setting

	Reload bool // takes effect on reload; the others need a restart

	// Check looks at a value that has the right kind and range: string, bool,
	// int, int64, time.Duration or []string. Its error says what is accepted.
	Check func(value any) error

	// Field points at the field that receives the value, of the type that Kind names.
	// It should be the field that the user of the setting reads, so that there is no
	// copy. An encoding.TextUnmarshaler gets the value in the syntax of a flag; Check
	// must have accepted it.
	Field any
}

// Env is a name in the environment that sets a setting. An empty value counts
// as absent.
type Env struct {
	Name string

	// Convert turns the value in the environment into the text of the setting. It
	// returns use = false for a value that has no meaning for this setting. nil takes
	// the value as it is.
	Convert func(value string) (text string, use bool, err error)

	Presence bool // the name alone counts, even if its value is empty
	Lenient  bool // a bad value is a warning, not an error
}

// Switch is a flag without a value that selects one value of a setting.
type Switch struct{ Flag, Value string }

// Legacy is a flag of an earlier generation that is accepted and does nothing.
type Legacy struct {
	Flag   string
	Bool   bool   // takes no value
	Advice string // what to use now
}

// Notice is an environment name whose presence deserves a warning.
type Notice struct{ Name, Text string }

// Section is the title of one table of the file, without the brackets.
type Section struct{ Name, Help string }

// Command is one way to call a program.
type Command struct {
	Words   string // "config check"; "start|stop" means two commands; "" for the program alone
	Option  string // "-o json": an option of this command only
	Flags   bool   // the flags of the settings may follow
	Meaning string // what it does, without a capital and a full stop
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

// Each returns the command, or one for each of its words "start|stop".
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
	Summary  string // what it is, one sentence
	Synopsis []Command
	File     string // where the main file is by default

	Sections []Section // in the order in which they are shown
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

// section and name are the two halves of the key: "mount", "command_timeout".
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

// in returns the settings of one section, in the order of the table.
func (t *Table) in(section string) []*Setting {
	var out []*Setting
	for i := range t.Settings {
		if t.Settings[i].section() == section {
			out = append(out, &t.Settings[i])
		}
	}
	return out
}
