package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// environment is what a process was started with. The first of two entries
// with one name counts, as in Go's own os.Getenv.
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

// values returns the settings that the environment makes. Errors are of names
// that may not be garbage, warnings of those that may.
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

// harmless is an error of Env.Convert that only warns, while others of the same
// name stop the program.
type harmless struct{ error }

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
