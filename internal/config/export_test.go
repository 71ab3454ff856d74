package config

import "github.com/compute-daemons/compute-daemons/internal/text"

// For the tests of package config_test, which use the settings of the daemons.
const (
	ConfigFlag = configFlag
	Columns    = text.Columns
	MaxFile    = maxFile
	MaxUnknown = maxUnknown
	MaxDropIns = maxDropIns
)

var (
	CleanName = clean
	ParseFile = parseFile
	Shape     = shape
)

// FromFile returns the settings in effect after one file.
func FromFile(t *Table, values []Value) (r Result, err error) {
	all, err := defaults(t)
	r.settle(t, append(all, values...))
	return r, err
}
