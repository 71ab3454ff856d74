// Package usage has the errors of a command line: unknown commands and flags, with
// the nearest that exists, and invalid values of flags. Daemons and tools share it.
//
// It must not know which commands and flags a program has.
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

// Error reports a wrong command line. A program that gets it does nothing and exits
// with 2. A suggestion is a hint of the cause: see package hint.
type Error struct{ cause error }

// Error returns the text of the cause, escaped: words of the command line could steer
// a terminal.
func (e *Error) Error() string { return text.Escape(e.cause.Error()) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an *Error like fmt.Errorf.
func Errorf(format string, args ...any) error { return &Error{fmt.Errorf(format, args...)} }

// few is how many words are listed if none of them is near.
const few = 4

// Unknown is the error for a word that is not in known. kind names the kind of word:
// "command". The hint is the nearest word, or all if they are few.
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

// FlagError converts an error of pflag's parser for this set: it returns pflag.ErrHelp
// or an *Error. The hint for an unknown flag is the nearest one that is not hidden.
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

// valueError is the reason why a flag refuses a value. The errors of Go's parsers name
// functions, which mean nothing to the user.
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

// clean quotes a name of the command line unless it is plain.
func clean(name string) string {
	if short := fmt.Sprintf("%.80s", name); short == name && text.Escape(name) == name && !strings.ContainsAny(name, " \"") {
		return name
	}
	return fmt.Sprintf("%.80q", name)
}
