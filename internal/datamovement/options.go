package datamovement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// OptionMode says which options callers may give.
type OptionMode string

// The modes. In every one the characters that mean something to a shell are
// refused, and so are options that choose as whom dcp copies.
const (
	OptionsList OptionMode = "list" // known ones only
	OptionsNone OptionMode = "none" // none at all
	// OptionsAny takes every option. mpirun has ones that run programs, which
	// makes whoever may copy root on the rabbit: it is for sites that trust
	// their users.
	OptionsAny OptionMode = "any"
)

// Options judges dcpOptions and mpirunOptions. A nil one allows none.
type Options struct {
	mode        OptionMode
	dcp, mpirun *tool
}

// NewOptions returns the judge of a mode. dcp and mpirun are further options
// for the mode list: a name with its dashes, followed by = when it takes a
// value ("--chunksize=", "-k=").
func NewOptions(mode OptionMode, dcp, mpirun []string) (*Options, error) {
	switch mode {
	case OptionsList, OptionsNone, OptionsAny:
	default:
		return nil, fmt.Errorf("option mode %s is not known: it is list, none or any", quote(string(mode)))
	}
	o := &Options{mode: mode, dcp: &dcpTool, mpirun: &mpirunTool}
	var err error
	if o.dcp, err = dcpTool.with(dcp); err != nil {
		return nil, err
	}
	if o.mpirun, err = mpirunTool.with(mpirun); err != nil {
		return nil, err
	}
	return o, nil
}

// CheckDCP refuses a text that must not stand behind dcp on the rabbit's
// command line.
func (o *Options) CheckDCP(text string) error { return o.check(&dcpTool, text) }

// CheckMPIRun is CheckDCP for what stands behind mpirun.
func (o *Options) CheckMPIRun(text string) error { return o.check(&mpirunTool, text) }

const (
	maxOptions     = 1024 // bytes
	maxOptionWords = 64

	// The blank separates; nothing here is syntax to a shell in any place.
	optionPunctuation = " %+,-./:=@^_"
)

func (o *Options) check(t *tool, text string) error {
	if text == "" {
		return nil
	}
	if o == nil || o.mode == OptionsNone {
		return refused(t.field, text, "options of "+t.name+" are switched off on this system")
	}
	if len(text) > maxOptions {
		return refused(t.field, text, "at most 1024 bytes are allowed")
	}
	if !only(text, optionPunctuation) {
		return refused(t.field, text, "options are made of A-Z a-z 0-9 % + , - . / : = @ ^ _ and blanks, because the rabbit puts them into a command line")
	}
	words := strings.Fields(text)
	if len(words) > maxOptionWords {
		return refused(t.field, text, "at most 64 words are allowed")
	}
	for _, w := range words {
		switch {
		case strings.Trim(w, "-") == "":
			// Behind it the profile's own options, such as the user's id, were operands.
			return refused(t.field, text, quote(w)+" ends the options")
		case strings.Contains(w, "dcp") || strings.Contains(w, "mpirun"):
			// The rabbit inserts options behind the first place where these letters are.
			return refused(t.field, text, quote(w)+" contains the name of a program")
		case t.identity != nil && t.identity(w):
			return refused(t.field, text, quote(w)+" would choose as whom is copied, which the workflow decides")
		}
	}
	if o.mode == OptionsAny {
		return nil
	}
	if t.name == dcpTool.name {
		t = o.dcp
	} else {
		t = o.mpirun
	}
	return t.known(text, words)
}

// with returns the tool with more options from the configuration.
func (t *tool) with(entries []string) (*tool, error) {
	if len(entries) == 0 {
		return t, nil
	}
	out := *t
	out.options = maps.Clone(t.options)
	for _, e := range entries {
		name, value := strings.CutSuffix(e, "=")
		bare := strings.TrimLeft(name, "-")
		dashes := len(name) - len(bare)
		if dashes < 1 || dashes > 2 || bare == "" || !alnum(bare[0]) || !only(bare, "-_") {
			return nil, fmt.Errorf("option %s of %s is not understood: it is a name with its dashes, and = behind it when it takes a value, such as --chunksize=", quote(e), t.name)
		}
		if t.identity != nil && t.identity(name) {
			return nil, fmt.Errorf("option %s of %s cannot be allowed: it would let users copy as another user", quote(e), t.name)
		}
		f := form{}
		if value {
			f = form{values: 1, check: anyValue, rule: "a value"}
		}
		out.options[name] = f
	}
	return &out, nil
}

// names returns the allowed options in order, for messages.
func (t *tool) names() string { return strings.Join(slices.Sorted(maps.Keys(t.options)), " ") }
