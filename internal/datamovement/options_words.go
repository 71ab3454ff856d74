package datamovement

import (
	"strings"
)

// form is what follows an option's name.
type form struct {
	values int // words that belong to it
	check  func(values []string) bool
	rule   string // what check wants, for a message
}

// tool is a program whose options callers may give.
type tool struct {
	name, field string
	options     map[string]form
	// short: single letters can be joined, and have their value attached, as
	// getopt(3) has it. Otherwise - and -- in front of a name are the same.
	short    bool
	identity func(word string) bool // tells whether a word chooses as whom is copied
}

func (t *tool) lookup(name string) (form, bool) {
	f, ok := t.options[name]
	if ok || t.short {
		return f, ok
	}
	if long, found := strings.CutPrefix(name, "--"); found {
		f, ok = t.options["-"+long]
	} else {
		f, ok = t.options["-"+name]
	}
	return f, ok
}

// known refuses words that are neither an allowed option nor the value of one.
// It must see the words as the program does, or a value could be an option.
func (t *tool) known(text string, words []string) error {
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if w[0] != '-' {
			return refused(t.field, text, quote(w)+" is neither an option nor the value of one")
		}
		name, attached, has := strings.Cut(w, "=")
		f, ok := t.lookup(name)
		switch {
		case ok && has:
			// A single letter takes the = for a part of its value.
			if f.values != 1 || t.short && !strings.HasPrefix(name, "--") {
				return refused(t.field, text, quote(name)+" does not take a value with =")
			}
			if err := t.value(text, name, f, []string{attached}); err != nil {
				return err
			}
			continue
		case !ok && t.short && !strings.HasPrefix(w, "--"):
			last, rest, err := t.letters(text, w)
			if err != nil {
				return err
			}
			if rest != "" {
				if err := t.value(text, last, t.options[last], []string{rest}); err != nil {
					return err
				}
				continue
			}
			name, f = last, t.options[last]
		case !ok:
			return t.unknown(text, name)
		}
		if len(words) < f.values {
			return refused(t.field, text, quote(name)+" needs "+f.rule)
		}
		if err := t.value(text, name, f, words[:f.values]); err != nil {
			return err
		}
		words = words[f.values:]
	}
	return nil
}

// letters takes joined letters apart. It returns the last option, and the value
// that is attached to it, if one is.
func (t *tool) letters(text, w string) (last, attached string, err error) {
	for i := 1; i < len(w); i++ {
		last = "-" + w[i:i+1]
		f, ok := t.options[last]
		if !ok {
			return "", "", t.unknown(text, last)
		}
		if f.values > 0 {
			return last, w[i+1:], nil
		}
	}
	return last, "", nil
}

func (t *tool) value(text, name string, f form, values []string) error {
	for _, v := range values {
		if !anyValue([]string{v}) {
			return refused(t.field, text, quote(v)+" is not a value of "+name+": it must start with a letter, a digit, / or ^")
		}
	}
	if f.check != nil && !f.check(values) {
		return refused(t.field, text, quote(strings.Join(values, " "))+" is not a value of "+name+", it needs "+f.rule)
	}
	return nil
}

func (t *tool) unknown(text, name string) error {
	return refused(t.field, text, quote(name)+" is not an allowed option of "+t.name+", allowed are "+t.names())
}

// anyValue holds for every value: one that starts with a dash could be taken
// for an option, a lone colon for the start of another program.
func anyValue(v []string) bool {
	return v[0] != "" && (alnum(v[0][0]) || v[0][0] == '/' || v[0][0] == '^')
}
