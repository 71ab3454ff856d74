package config

import (
	"cmp"
	"fmt"
	"slices"
)

// Layer is where a value can come from, weakest first.
type Layer int

// The layers, in the order in which each overrides the one before it.
const (
	Default Layer = iota
	File
	Environment
	Flag
)

// Origin says where a value came from.
type Origin struct {
	Layer Layer
	Name  string // path of the file, name in the environment, or flag without dashes
	Line  int    // File: counted from 1
}

// String is what people read: "default", "/etc/…/config.toml:12",
// "environment NODE_NAME" or "flag --node-name".
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

// Value is a setting together with what it is set to, in the Go type of its
// kind, and why.
type Value struct {
	Setting *Setting
	Value   any
	Origin  Origin
}

// Literal is the value as TOML writes it; a secret that is set is not shown.
func (v Value) Literal() string {
	if v.Setting.Secret && bare(v.Setting.Kind, v.Value) != v.Setting.Default {
		return tomlString("(not shown)")
	}
	return v.Setting.literal(v.Value)
}

// Problem is one thing wrong in one file.
type Problem struct {
	File string
	Line int // 0 when it is about the file as a whole
	Text string
}

// Error names the place first, as compilers do, so that editors can jump.
func (p *Problem) Error() string { return place(p.File, p.Line) + ": " + p.Text }

func place(file string, line int) string {
	if line == 0 {
		return clean(file)
	}
	return fmt.Sprintf("%s:%d", clean(file), line)
}

// clean keeps a name with control characters from forging lines of the log.
func clean(name string) string {
	if printable(name) != nil {
		return quote(name)
	}
	return name
}

// byLine sorts for the reader who goes through the file from the top.
func byLine(problems []*Problem) {
	slices.SortStableFunc(problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
}

// complain prefixes an error with the key, and hides what a secret was.
func (s *Setting) complain(err error) string {
	if s.Secret {
		return s.Key + ": the value is not accepted (a secret, not shown)"
	}
	return s.Key + ": " + err.Error()
}
