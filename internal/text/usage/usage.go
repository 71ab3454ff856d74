// Package usage has the usage errors of all programs: unknown commands and flags, with the
// nearest existing one, and invalid values of flags.
//
// It must not know the commands and flags of a program.
package usage

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// Error is a usage error. The program does nothing and exits with 2. The cause may have a
// hint with a suggestion (package hint).
type Error struct{ cause error }

// Error returns the escaped text of the cause, because arguments could contain control
// characters.
func (e *Error) Error() string { return text.Escape(e.cause.Error()) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Errorf returns an *Error like fmt.Errorf.
func Errorf(format string, args ...any) error { return &Error{fmt.Errorf(format, args...)} }

// few is the maximum number of words that are listed if none of them is near.
const few = 4

// Unknown returns the error for a word that is not in known. kind is the kind of word, for
// example "command". The hint is the nearest word, or all words if they are few.
func Unknown(kind, word string, known []string) error {
	err := fmt.Errorf("unknown %s %.80q", kind, word)
	if best := text.Nearest(word, known); best != "" {
		err = hint.Add(err, "did you mean %q?", best)
	} else if len(known) <= few {
		list := strings.Join(known, ", ")
		if i := strings.LastIndex(list, ", "); i >= 0 {
			list = list[:i] + " or" + list[i+1:]
		}
		err = hint.Add(err, "use %s", list)
	}
	return &Error{err}
}

// FlagError converts an error of the pflag parser for this set to pflag.ErrHelp or an
// *Error. The hint for an unknown flag is the nearest flag that is not hidden.
func FlagError(set *pflag.FlagSet, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return pflag.ErrHelp
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(set, unknown)
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return Errorf("flag --%s: %w", invalid.GetFlag().Name, valueError(invalid))
	}
	return Errorf("%s", strings.Join(strings.Fields(err.Error()), " "))
}

func unknownFlag(set *pflag.FlagSet, unknown *pflag.NotExistError) error {
	known := []string{"help"}
	set.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	name, dashes := unknown.GetSpecifiedName(), "--"
	if letters := unknown.GetSpecifiedShortnames(); letters != "" {
		name, dashes = letters, "-"
	}
	err := fmt.Errorf("unknown flag %s%s", dashes, clean(name))
	if best := text.Nearest(name, known); best != "" {
		err = hint.Add(err, "did you mean --%s?", best)
	}
	return &Error{err}
}

// valueError returns the reason why a flag refuses a value, without the names of Go
// functions in the errors of parsers.
func valueError(invalid *pflag.InvalidValueError) error {
	cause := errors.Unwrap(invalid)
	value := fmt.Sprintf("%.80q", invalid.GetValue())
	number := (*strconv.NumError)(nil)
	switch is := errors.As(cause, &number); {
	case is && errors.Is(number.Err, strconv.ErrRange):
		return fmt.Errorf("%s is out of range", value)
	case is && number.Func == "ParseBool":
		return fmt.Errorf("%s is neither true nor false", value)
	case is:
		return fmt.Errorf("%s is not a whole number", value)
	case strings.HasPrefix(cause.Error(), "time: "):
		return fmt.Errorf("%s is not a duration, for example 90s or 2h", value)
	}
	return cause
}

// clean quotes a name unless it is plain.
func clean(name string) string {
	if short := fmt.Sprintf("%.80s", name); short == name && text.Escape(name) == name && !strings.ContainsAny(name, " \"") {
		return name
	}
	return fmt.Sprintf("%.80q", name)
}
