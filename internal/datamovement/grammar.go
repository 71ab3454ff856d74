package datamovement

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Grammar describes texts that are safe in the command line of the rabbit, for programs that can
// only match regular expressions (RE2): an admission policy of the API server. Match must match,
// and Refuse must not.
type Grammar struct {
	Match  string `json:"match"`
	Refuse string `json:"refuse"`
}

// Grammars has the grammars of the texts in a data movement. An API server that uses them does not
// rely on the checks of nnf-dm: a node that was taken over creates data movements without it.
type Grammars struct {
	Path          Grammar `json:"path"`
	DCPOptions    Grammar `json:"dcpOptions"`
	MPIRunOptions Grammar `json:"mpirunOptions"`
}

// Grammars returns the grammars of paths and of the options in the list. They ignore limits of
// sizes, lengths and numbers, which are not about safety.
func (o *Options) Grammars() Grammars {
	return Grammars{
		Path:          Grammar{`^/[\p{L}\p{M}\p{N}` + class(pathPunctuation) + `]*$`, `(^|/)\.\.(/|$)`},
		DCPOptions:    o.dcp.grammar(),
		MPIRunOptions: o.mpirun.grammar(),
	}
}

// programs are names that no option may contain: see Options.check.
const programs = "dcp|mpirun"

// noFiles are placements that read a file: see placementText.
const noFiles = "(?i:file|seq)"

// grammar returns the grammar of the words that known accepts.
func (t *tool) grammar() Grammar {
	refuse := programs
	if !t.short {
		refuse += "|" + noFiles
	}
	dashes := "-{1,2}"
	if t.short {
		dashes = "--"
	}
	var words, last []string
	flags := ""
	for _, name := range slices.Sorted(maps.Keys(t.options)) {
		f, bare := t.options[name], strings.TrimLeft(name, "-")
		switch letter := t.short && name == "-"+bare && len(bare) == 1; {
		case letter && f.values == 0:
			flags += bare
		case letter: // its value can be attached
			last = append(last, bare+" *"+f.pattern)
		case f.values == 0:
			words = append(words, dashes+regexp.QuoteMeta(bare))
		case f.values == 1:
			words = append(words, dashes+regexp.QuoteMeta(bare)+"(=| +)"+f.pattern)
		default:
			words = append(words, dashes+regexp.QuoteMeta(bare)+" +"+f.pattern)
		}
	}
	if flags != "" {
		words = append(words, "-["+flags+"]*("+strings.Join(append(last, "["+flags+"]"), "|")+")")
	}
	return Grammar{"^ *((" + strings.Join(words, "|") + ")( +|$))*$", refuse}
}

// class returns the characters for use inside brackets.
func class(characters string) string {
	return strings.NewReplacer("-", `\-`, "^", `\^`).Replace(characters)
}
