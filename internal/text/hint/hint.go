// Package hint adds a hint, the next action, to errors, and prints errors in the common
// form of all programs.
//
// It must not know the errors.
package hint

import (
	"fmt"
	"io"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// hinted is an error with a hint.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Add returns err with a hint, a sentence without a capital and a full stop. The text of
// the error does not change. If err is nil, it returns nil.
func Add(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// Of returns the hints of err and of the errors that it wraps, the innermost first, or ""
// if they have no hint.
func Of(err error) string {
	all := ""
	for _, text := range collect(nil, err) {
		switch {
		case all == "":
		case strings.HasSuffix(all, "?"):
			all += " "
		default:
			all += "; "
		}
		all += text
	}
	return all
}

func collect(list []string, err error) []string {
	if err == nil {
		return list
	}
	switch w := err.(type) {
	case interface{ Unwrap() error }:
		list = collect(list, w.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range w.Unwrap() {
			list = collect(list, e)
		}
	}
	if h, ok := err.(*hinted); ok {
		list = append(list, h.hint)
	}
	return list
}

// Write prints an error: a line "program: error: …", and a line "program: hint: …" if the
// error has a hint. Joined errors are printed separately. The lines are safe for
// terminals. Each line starts with before: the priority for the journal (sd-daemon(3)), or
// "".
func Write(w io.Writer, before, program string, err error) {
	for _, one := range split(err) {
		for line := range strings.SplitSeq(strings.TrimSpace(one.Error()), "\n") {
			fmt.Fprintf(w, "%s%s: error: %s\n", before, program, text.Line(line))
		}
		if next := Of(one); next != "" {
			fmt.Fprintf(w, "%s%s: hint: %s\n", before, program, text.Line(next))
		}
	}
}

// split returns the errors of errors.Join. It does not split errors that wrap several
// errors in one sentence.
func split(err error) (list []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var texts []string
	for _, e := range joined.Unwrap() {
		texts = append(texts, e.Error())
		list = append(list, split(e)...)
	}
	if err.Error() != strings.Join(texts, "\n") {
		return []error{err}
	}
	return list
}
