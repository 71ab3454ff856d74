package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Sources are the environment and the arguments. The path of the main file comes from
// the table or from --config.
type Sources struct {
	Environ []string // "NAME=value", as from os.Environ
	Args    []string // arguments without the program name and sub-command
}

// Result is the result of all layers.
type Result struct {
	Values   []Value  // one value per setting, in the order of the table
	Files    []string // files that were read, in order
	Warnings []string // one line each, to be logged at startup
}

// Lookup returns the value of a key. ok is false if the table does not have the key.
func (r *Result) Lookup(key string) (v Value, ok bool) {
	for _, v := range r.Values {
		if v.Setting.Key == key {
			return v, true
		}
	}
	return Value{}, false
}

// Load reads all layers and, if there are no errors, fills the fields of the table.
// rest are the arguments that are not flags.
//
// The error is ErrHelp, a *usage.Error, or the *Problems of all files joined with the
// errors of the environment, one line each.
func Load(t *Table, src Sources) (result Result, rest []string, err error) {
	result, rest, err = load(t, src)
	if err != nil {
		return result, rest, err
	}
	return result, rest, result.fill()
}

// load is Load without filling the fields.
func load(t *Table, src Sources) (Result, []string, error) {
	var result Result
	line, err := parseArgs(t, src.Args)
	if err != nil {
		return result, line.rest, err
	}
	layers, err := defaults(t)
	if err != nil {
		return result, line.rest, err
	}
	values, problems := result.readFiles(t, line.config)
	layers = append(layers, values...)

	values, warnings, envProblems := newEnvironment(src.Environ).values(t)
	layers = append(layers, values...)
	problems = append(problems, envProblems...)
	layers = append(layers, line.values...)

	if len(problems) > 0 {
		return result, line.rest, errors.Join(problems...)
	}
	result.settle(t, layers)
	result.Warnings = append(line.warnings, warnings...)
	return result, line.rest, nil
}

func defaults(t *Table) ([]Value, error) {
	values := make([]Value, 0, len(t.Settings))
	for i := range t.Settings {
		s := &t.Settings[i]
		v, err := s.parse(s.Default)
		if err != nil {
			return nil, errors.New("default of " + s.complain(err)) // a bug in the table
		}
		values = append(values, Value{s, v, Origin{}})
	}
	return values, nil
}

// readFiles reads the main file and its drop-ins, and adds the existing ones to
// r.Files.
func (r *Result) readFiles(t *Table, flag string) (values []Value, problems []error) {
	file := cmp.Or(flag, t.File)
	paths := []string{file}
	more, problem := dropIns(filepath.Join(filepath.Dir(file), "config.d"))
	if problem != nil {
		problems = append(problems, problem)
	}
	for i, path := range append(paths, more...) {
		data, found, problem := readFile(path)
		if !found {
			if i == 0 && flag != "" {
				problem = &Problem{File: path, Text: "does not exist (" + t.Program + " config default prints one)"}
				problems = append(problems, problem)
			}
			continue
		}
		r.Files = append(r.Files, path)
		if problem != nil {
			problems = append(problems, problem)
			continue
		}
		read, wrong := parseFile(t, path, data)
		values = append(values, read...)
		for _, problem := range wrong {
			problems = append(problems, problem)
		}
	}
	return values, problems
}

// settle sets r.Values to the last value of each setting.
func (r *Result) settle(t *Table, layers []Value) {
	last := make(map[*Setting]Value, len(t.Settings))
	for _, v := range layers {
		last[v.Setting] = v
	}
	r.Values = make([]Value, 0, len(last))
	for i := range t.Settings {
		r.Values = append(r.Values, last[&t.Settings[i]])
	}
}

func (r *Result) fill() error {
	for _, v := range r.Values {
		if err := v.Setting.fill(v.Value); err != nil {
			return err
		}
	}
	return nil
}

// Layer is a source of values.
type Layer int

// The layers. Each overrides the ones before it.
const (
	Default Layer = iota
	File
	Environment
	Flag
)

// Origin is where a value came from.
type Origin struct {
	Layer Layer
	Name  string // path, environment variable, or flag without dashes
	Line  int    // File: counted from 1
}

// String returns "default", "/etc/…/config.toml:12", "environment NODE_NAME" or
// "flag --node-name".
func (o Origin) String() string {
	switch o.Layer {
	case File:
		return place(o.Name, o.Line)
	case Environment:
		return "environment " + o.Name
	case Flag:
		return "flag --" + o.Name
	}
	return "default"
}

// Value is the value of a setting, in the Go type of its kind, with its origin.
type Value struct {
	Setting *Setting
	Value   any
	Origin  Origin
}

// Literal returns the value in TOML syntax.
func (v Value) Literal() string { return v.Setting.literal(v.Value) }

// Problem is an error in a file.
type Problem struct {
	File string
	Line int // counted from 1; 0: the file as a whole
	Text string
}

// Error returns the message in the form of a compiler message: "file:line: text".
func (p *Problem) Error() string { return place(p.File, p.Line) + ": " + p.Text }

func place(file string, line int) string {
	if line == 0 {
		return clean(file)
	}
	return fmt.Sprintf("%s:%d", clean(file), line)
}

// clean quotes a name with control characters, which could forge log lines.
func clean(name string) string {
	if printable(name) != nil {
		return text.Quote(name)
	}
	return name
}

// byLine sorts problems by line.
func byLine(problems []*Problem) {
	slices.SortStableFunc(problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
}

// complain prefixes an error with the key.
func (s *Setting) complain(err error) string { return s.Key + ": " + err.Error() }

// Reload loads all layers again and fills the fields of t. t must be bound to a new
// structure, not to the structure that the running daemon reads. changed are the keys
// with a new value in effect. ignored are the changed keys that need a restart: they
// keep their old value and origin.
//
// After an error the result is old, and the fields of t are unchanged.
func Reload(old Result, t *Table, src Sources) (result Result, changed, ignored []string, err error) {
	result, _, err = load(t, src)
	if err != nil {
		return old, nil, nil, err
	}
	for i := range result.Values {
		now := &result.Values[i]
		before, ok := old.Lookup(now.Setting.Key)
		switch {
		case !ok || reflect.DeepEqual(before.Value, now.Value):
		case now.Setting.Reload:
			changed = append(changed, now.Setting.Key)
		default:
			ignored = append(ignored, now.Setting.Key)
			now.Value, now.Origin = before.Value, before.Origin
		}
	}
	return result, changed, ignored, result.fill()
}

// environment has the environment variables. If a name occurs twice, the first value
// is used, as by os.Getenv.
type environment map[string]string

func newEnvironment(environ []string) environment {
	env := make(environment, len(environ))
	for _, entry := range environ {
		name, value, found := strings.Cut(entry, "=")
		if _, twice := env[name]; found && !twice {
			env[name] = value
		}
	}
	return env
}

// values returns the settings in the environment. An invalid value is a warning if the
// variable is lenient, otherwise an error.
func (e environment) values(t *Table) (values []Value, warnings []string, problems []error) {
	for i := range t.Settings {
		s := &t.Settings[i]
		for _, env := range s.Env {
			v, use, err := e.value(s, env)
			switch {
			case err == nil && use:
				values = append(values, Value{s, v, Origin{Environment, env.Name, 0}})
			case err == nil:
				continue
			case env.Lenient || isHarmless(err):
				text := fmt.Sprintf("environment %s is ignored: %s", env.Name, s.complain(err))
				if !slices.Contains(warnings, text) {
					warnings = append(warnings, text)
				}
				continue
			default:
				problems = append(problems, fmt.Errorf("environment %s: %s", env.Name, s.complain(err)))
			}
			break
		}
	}
	for _, n := range t.Notices {
		if _, present := e[n.Name]; present {
			warnings = append(warnings, fmt.Sprintf("environment %s: %s", n.Name, n.Text))
		}
	}
	return values, warnings, problems
}

type harmless struct{ error }

// Harmless marks an error of Env.Convert as a warning: the value is ignored. Other
// errors make Load fail.
func Harmless(err error) error { return harmless{err} }

func isHarmless(err error) bool {
	_, ok := errors.AsType[harmless](err)
	return ok
}

func (e environment) value(s *Setting, env Env) (v any, use bool, err error) {
	text, present := e[env.Name]
	if !present || (text == "" && !env.Presence) {
		return nil, false, nil
	}
	if env.Convert != nil {
		if text, use, err = env.Convert(text); err != nil || !use {
			return nil, false, err
		}
	}
	v, err = s.parse(text)
	return v, err == nil, err
}
