package config

import (
	"errors"
	"path/filepath"
	"slices"
)

// Sources says where to look. The zero value reads the table's default file
// and its drop-ins, with neither environment nor flags.
type Sources struct {
	File         string   // main file; "" is the table's default, or what --config names
	FileRequired bool     // the main file must be there; --config implies it
	Dir          string   // drop-in directory; "" is config.d beside the main file
	Environ      []string // "NAME=value", as from os.Environ
	Args         []string // arguments without the program's name and its sub-command
}

// Result is what all layers together say.
type Result struct {
	Values   []Value  // one for each setting, in the order of the table
	Files    []string // files that were read, in order
	Warnings []string // one line each, worth one record in the log at start
}

// Lookup returns the value of a key. Ok is false when the table has no such
// key.
func (r *Result) Lookup(key string) (v Value, ok bool) {
	for _, v := range r.Values {
		if v.Setting.Key == key {
			return v, true
		}
	}
	return Value{}, false
}

// Load puts the layers together and, when nothing at all is wrong, fills the
// fields that the table points at. Rest are the arguments that are no flags.
//
// The error is ErrHelp, a *usage.Error for the command line, or the *Problems
// of all files joined with the errors of the environment, one line each.
func Load(t *Table, src Sources) (result Result, rest []string, err error) {
	result, rest, err = load(t, src)
	if err != nil {
		return result, rest, err
	}
	return result, rest, result.fill()
}

// load is Load without touching the fields.
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
	values, problems := result.readFiles(t, src, line.config)
	layers = append(layers, values...)

	values, warnings, envProblems := newEnvironment(src.Environ).values(t)
	layers = append(layers, values...)
	problems = append(problems, envProblems...)
	layers = append(layers, line.values...)

	if len(problems) > 0 {
		return result, line.rest, errors.Join(problems...)
	}
	result.settle(t, layers)
	result.Warnings = slices.Concat(line.warnings, warnings, result.deprecated())
	return result, line.rest, nil
}

func defaults(t *Table) ([]Value, error) {
	values := make([]Value, 0, len(t.Settings))
	for i := range t.Settings {
		s := &t.Settings[i]
		v, err := s.parse(s.Default)
		if err != nil {
			return nil, errors.New("default of " + s.complain(err)) // a mistake in the table
		}
		values = append(values, Value{s, v, Origin{}})
	}
	return values, nil
}

// readFiles reads the main file and its drop-ins, noting in r which were there.
func (r *Result) readFiles(t *Table, src Sources, flag string) (values []Value, problems []error) {
	file, required := src.File, src.FileRequired
	if flag != "" {
		file, required = flag, true
	}
	if file == "" {
		file = t.File
	}
	dir := src.Dir
	if dir == "" {
		dir = filepath.Join(filepath.Dir(file), "config.d")
	}
	paths := []string{file}
	more, problem := dropIns(dir)
	if problem != nil {
		problems = append(problems, problem)
	}
	for i, path := range append(paths, more...) {
		data, found, problem := readFile(path)
		if !found {
			if i == 0 && required {
				problem = &Problem{File: path, Text: "does not exist (" + t.Program + " config default writes one)"}
				problems = append(problems, problem)
			}
			continue
		}
		r.Files = append(r.Files, path)
		if problem != nil {
			problems = append(problems, problem)
			continue
		}
		said, wrong := parseFile(t, path, data)
		values = append(values, said...)
		for _, problem := range wrong {
			problems = append(problems, problem)
		}
	}
	return values, problems
}

// settle keeps the last value of each setting.
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

func (r *Result) deprecated() (warnings []string) {
	for _, v := range r.Values {
		if v.Setting.Deprecated != "" && v.Origin.Layer != Default {
			warnings = append(warnings, v.Origin.String()+": "+v.Setting.Key+" is deprecated: "+v.Setting.Deprecated)
		}
	}
	return warnings
}

func (r *Result) fill() error {
	for _, v := range r.Values {
		if err := v.Setting.fill(v.Value); err != nil {
			return err
		}
	}
	return nil
}
