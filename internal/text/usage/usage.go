// Package usage has the errors of a command line: unknown commands and flags, with
// the nearest that exists, and values that a flag does not take. Daemons and tools
// share it.
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
)

// Error is a wrong command line. Programs do nothing then and exit with 2.
type Error struct {
	err  error
	next string
}

// Error is one line that can be shown: words of the command line may steer a
// terminal.
func (e *Error) Error() string { return text.Escape(e.err.Error()) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// NextStep is the suggestion, if there is one: see hint.Of.
func (e *Error) NextStep() string { return e.next }

// Errorf makes an *Error like fmt.Errorf.
func Errorf(format string, args ...any) error { return &Error{err: fmt.Errorf(format, args...)} }

// few is how many words a person likes to read instead of a suggestion.
const few = 4

// Unknown is the error for a word that is not in known. kind says what it should
// be: "command". It suggests the nearest word, or all if they are few.
func Unknown(kind, word string, known []string) error {
	e := &Error{err: fmt.Errorf("unknown %s %.80q", kind, word)}
	if best := text.Nearest(word, known); best != "" {
		e.next = fmt.Sprintf("did you mean %q?", best)
	} else if len(known) <= few {
		e.next = "use " + strings.Join(known, ", ")
		if i := strings.LastIndex(e.next, ", "); i >= 0 {
			e.next = e.next[:i] + " or" + e.next[i+1:]
		}
	}
	return e
}

// FlagError is what err, an error of pflag's parser for this set, means to the
// user: pflag.ErrHelp or an *Error. An unknown flag suggests the nearest that is
// not hidden.
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
	return Errorf("%s", oneLine(err.Error()))
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
	e := &Error{err: fmt.Errorf("unknown flag %s%s", dashes, clean(name))}
	if best := text.Nearest(name, known); best != "" {
		e.next = "did you mean --" + best + "?"
	}
	return e
}

// valueError is the reason why a flag refuses a value. The parsers of Go name
// functions that mean nothing to the user.
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

// clean keeps a name as it is, or quotes it: it is the user's.
func clean(name string) string {
	if short := fmt.Sprintf("%.80s", name); short == name && text.Escape(name) == name && !strings.ContainsAny(name, " \"") {
		return name
	}
	return fmt.Sprintf("%.80q", name)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
