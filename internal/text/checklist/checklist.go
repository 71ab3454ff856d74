// Package checklist prints the results of checks, for the doctor commands of all programs: as
// lines for people, or as a JSON document with a version.
//
// It must not know what is checked. It links little, because a daemon uses it.
package checklist

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// State is the result of a check.
type State string

// The states.
const (
	OK   State = "ok"
	Warn State = "warn" // works, but not as it should; or the check could not find out
	Fail State = "fail" // something does not work
	Skip State = "skip" // not checked, because an earlier check failed or the check does not apply
)

// States lists all states.
var States = []State{OK, Warn, Fail, Skip}

// Check is the result of one check.
type Check struct {
	Name  string `json:"name"` // stable; several results can have the same name
	State State  `json:"state"`
	Text  string `json:"text"`           // what was found
	Hint  string `json:"hint,omitempty"` // the next step, without a full stop
}

// Version is the version of the layout of Document. A field may be added to a version; the
// version changes if a field is removed or changes its meaning. packaging/schemas/doctor.json
// describes the layout.
const Version = 1

// Document is the JSON form of a list of checks.
type Document struct {
	Version int     `json:"version"`
	Program string  `json:"program"` // the program that ran the checks
	Checks  []Check `json:"checks"`
}

// maxText limits the length of a text or hint, in bytes.
const maxText = 2000

// NewDocument returns the checks of a program as a Document.
func NewDocument(program string, list []Check) *Document {
	d := &Document{Version: Version, Program: program, Checks: make([]Check, 0, len(list))}
	for _, c := range list {
		c.Text, c.Hint = text.Clip(strings.TrimSpace(c.Text), maxText), text.Clip(strings.TrimSpace(c.Hint), maxText)
		d.Checks = append(d.Checks, c)
	}
	return d
}

// JSON writes the checks of a program as a Document.
func JSON(w io.Writer, program string, list []Check) error {
	return text.JSON(w, NewDocument(program, list))
}

// Checks writes the checks for people: state, name and text in columns, and the hint in lines of
// its own below them. Long texts are wrapped.
func Checks(w io.Writer, list []Check) error {
	width := 0
	for _, c := range list {
		width = max(width, len(c.Name))
	}
	var b strings.Builder
	for _, c := range list {
		first := column(strings.ToUpper(string(c.State)), len(Fail)) + column(c.Name, width)
		rest := strings.Repeat(" ", len(first))
		b.WriteString(cmp.Or(wrap(first, rest, c.Text), strings.TrimRight(first, " ")+"\n"))
		if c.Hint != "" {
			b.WriteString(wrap(rest+"hint: ", rest+"      ", c.Hint))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// column pads a cell to the width of its column and the space behind it.
func column(cell string, width int) string {
	return cell + strings.Repeat(" ", max(0, width-len(cell))+2)
}

func wrap(first, rest, s string) string {
	return text.Wrap(text.Columns, first, rest, text.Clip(text.Line(s), maxText))
}

// Failed reports whether a check failed.
func Failed(list []Check) bool {
	return slices.ContainsFunc(list, func(c Check) bool { return c.State == Fail })
}
