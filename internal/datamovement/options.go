package datamovement

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// OptionMode says which options callers may give.
type OptionMode string

// The modes. In every one the characters that mean something to a shell are
// refused, and so are options that choose the identity with which dcp copies.
const (
	OptionsList OptionMode = "list" // known ones only
	OptionsNone OptionMode = "none" // none at all
	// OptionsAny takes every option. Some of mpirun run programs, so every user who
	// may copy can become root on the rabbit: it is for sites that trust their users.
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
		return nil, fmt.Errorf("option mode %s is not known: it is list, none or any", text.Quote(string(mode)))
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
func (o *Options) CheckDCP(given string) error { return o.check(&dcpTool, given) }

// CheckMPIRun is CheckDCP for what stands behind mpirun.
func (o *Options) CheckMPIRun(given string) error { return o.check(&mpirunTool, given) }

const (
	maxOptions     = 1024 // bytes
	maxOptionWords = 64

	// The blank separates; nothing here is syntax to a shell in any place.
	optionPunctuation = " %+,-./:=@^_"
)

func (o *Options) check(t *tool, given string) error {
	if given == "" {
		return nil
	}
	if o == nil || o.mode == OptionsNone {
		return refused(t.field, given, "options of "+t.name+" are switched off on this system")
	}
	if len(given) > maxOptions {
		return refused(t.field, given, "at most 1024 bytes are allowed")
	}
	if !text.Only(given, optionPunctuation) {
		return refused(t.field, given, "options are made of A-Z a-z 0-9 % + , - . / : = @ ^ _ and blanks, because the rabbit puts them into a command line")
	}
	words := strings.Fields(given)
	if len(words) > maxOptionWords {
		return refused(t.field, given, "at most 64 words are allowed")
	}
	for _, w := range words {
		switch {
		case strings.Trim(w, "-") == "":
			// Behind it the profile's own options, such as the user's id, were operands.
			return refused(t.field, given, text.Quote(w)+" ends the options")
		case strings.Contains(w, "dcp") || strings.Contains(w, "mpirun"):
			// The rabbit inserts options behind the first place where these letters are.
			return refused(t.field, given, text.Quote(w)+" contains the name of a program")
		case t.identity != nil && t.identity(w):
			return refused(t.field, given, text.Quote(w)+" would choose as whom is copied, which the workflow decides")
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
	return t.known(given, words)
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
		if dashes < 1 || dashes > 2 || bare == "" || !text.Alphanumeric(bare[0]) || !text.Only(bare, "-_") {
			return nil, fmt.Errorf("option %s of %s is not understood: it is a name with its dashes, and = behind it when it takes a value, such as --chunksize=", text.Quote(e), t.name)
		}
		if t.identity != nil && t.identity(name) {
			return nil, fmt.Errorf("option %s of %s cannot be allowed: it would let users copy as another user", text.Quote(e), t.name)
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
func (t *tool) known(given string, words []string) error {
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if w[0] != '-' {
			return refused(t.field, given, text.Quote(w)+" is neither an option nor the value of one")
		}
		name, attached, has := strings.Cut(w, "=")
		f, ok := t.lookup(name)
		switch {
		case ok && has:
			// A single letter takes the = as a part of its value.
			if f.values != 1 || t.short && !strings.HasPrefix(name, "--") {
				return refused(t.field, given, text.Quote(name)+" does not take a value with =")
			}
			if err := t.value(given, name, f, []string{attached}); err != nil {
				return err
			}
			continue
		case !ok && t.short && !strings.HasPrefix(w, "--"):
			last, rest, err := t.letters(given, w)
			if err != nil {
				return err
			}
			if rest != "" {
				if err := t.value(given, last, t.options[last], []string{rest}); err != nil {
					return err
				}
				continue
			}
			name, f = last, t.options[last]
		case !ok:
			return t.unknown(given, name)
		}
		if len(words) < f.values {
			return refused(t.field, given, text.Quote(name)+" needs "+f.rule)
		}
		if err := t.value(given, name, f, words[:f.values]); err != nil {
			return err
		}
		words = words[f.values:]
	}
	return nil
}

// letters takes joined letters apart. It returns the last option, and the value
// that is attached to it, if one is.
func (t *tool) letters(given, w string) (last, attached string, err error) {
	for i := 1; i < len(w); i++ {
		last = "-" + w[i:i+1]
		f, ok := t.options[last]
		if !ok {
			return "", "", t.unknown(given, last)
		}
		if f.values > 0 {
			return last, w[i+1:], nil
		}
	}
	return last, "", nil
}

func (t *tool) value(given, name string, f form, values []string) error {
	for _, v := range values {
		if !anyValue([]string{v}) {
			return refused(t.field, given, text.Quote(v)+" is not a value of "+name+": it must start with a letter, a digit, / or ^")
		}
	}
	if f.check != nil && !f.check(values) {
		return refused(t.field, given, text.Quote(strings.Join(values, " "))+" is not a value of "+name+", it needs "+f.rule)
	}
	return nil
}

func (t *tool) unknown(given, name string) error {
	return refused(t.field, given, text.Quote(name)+" is not an allowed option of "+t.name+", allowed are "+t.names())
}

// anyValue holds for every value: one that starts with a dash could be taken
// for an option, a lone colon for the start of another program.
func anyValue(v []string) bool {
	return v[0] != "" && (text.Alphanumeric(v[0][0]) || v[0][0] == '/' || v[0][0] == '^')
}

// dcpTool is dcp of mpiFileUtils (dcp(1)). Left out are what reads or writes
// further files (--input, DAOS), and what chooses the identity.
var dcpTool = tool{
	name: "dcp", field: fieldDCPOptions, short: true, identity: dcpIdentity,
	options: map[string]form{
		"-b": size, "--blocksize": size, "--bufsize": size,
		"-k": size, "--chunksize": size,
		"-p": {}, "--preserve": {},
		"-s": {}, "--direct": {},
		"-S": {}, "--sparse": {},
		"-L": {}, "--dereference": {},
		"-P": {}, "--no-dereference": {},
		"-X": xattrs, "--xattrs": xattrs,
		"--open-noatime": {},
		"--progress":     number(3600),
		"-v":             {}, "--verbose": {},
		"-q": {}, "--quiet": {},
	},
}

// mpirunTool is mpirun of Open MPI 4 and 5 (mpirun(1)). It runs as root on the
// rabbit: left out is everything that names a program, a file, a host or an
// environment variable.
var mpirunTool = tool{
	name: "mpirun", field: fieldMPIRunOptions,
	options: map[string]form{
		"-n": number(65536), "--np": number(65536), "-c": number(65536),
		"-N": number(65536), "--npernode": number(65536), "--npersocket": number(65536), "--ppn": number(65536),
		"--bind-to": placement, "--map-by": placement, "--rank-by": placement,
		"--oversubscribe": {}, "--nooversubscribe": {}, "--use-hwthread-cpus": {},
		"--report-bindings": {}, "--display-map": {}, "--display-allocation": {},
		"--timeout": number(7 * 86400),
		"--mca":     component,
	},
}

var (
	size      = form{1, func(v []string) bool { return sizeText(v[0]) }, "a size such as 4MB"}
	xattrs    = form{1, func(v []string) bool { return slices.Contains(xattrKinds, v[0]) }, "one of " + strings.Join(xattrKinds, " ")}
	placement = form{1, func(v []string) bool { return placementText(v[0]) }, "a placement such as core or ppr:2:node"}
	component = form{2, componentText, "one of the parameters " + strings.Join(components, " ") + " and a list of names"}
)

var xattrKinds = []string{"none", "all", "non-lustre", "libattr"}

// components are parameters of Open MPI that choose transports and networks.
// Others name programs that mpirun starts, or files that it reads.
var components = []string{"btl", "btl_tcp_if_exclude", "btl_tcp_if_include", "mtl", "oob_tcp_if_exclude", "oob_tcp_if_include", "pml"}

func number(most int) form {
	return form{1, func(v []string) bool {
		n, err := strconv.Atoi(v[0])
		return err == nil && n >= 0 && n <= most
	}, "a number of at most " + strconv.Itoa(most)}
}

// sizeText is a decimal number with a unit or none.
func sizeText(s string) bool {
	n := strings.TrimLeft(s, "0123456789")
	if len(n) == len(s) || len(s)-len(n) > 19 {
		return false
	}
	unit := strings.ToUpper(n)
	return unit == "" || slices.Contains([]string{"B", "K", "KB", "M", "MB", "G", "GB", "T", "TB"}, unit)
}

// placementText leaves out what reads a file: rankfile and seq.
func placementText(s string) bool {
	l := strings.ToLower(s)
	return text.Only(s, ":,=-") && !strings.Contains(l, "file") && !strings.Contains(l, "seq")
}

func componentText(v []string) bool {
	// ^ in front of a list means all but these.
	return slices.Contains(components, v[0]) && text.Only(strings.TrimPrefix(v[1], "^"), ",._-")
}

// dcpIdentity tells whether getopt_long(3) could take the word for --uid or
// --gid, or for their letters: names may be abbreviated, letters joined.
func dcpIdentity(w string) bool {
	name, _, _ := strings.Cut(w, "=")
	if strings.HasPrefix(name, "--") {
		return len(name) > 2 && (strings.HasPrefix("--uid", name) || strings.HasPrefix("--gid", name))
	}
	if name == "" || name[0] != '-' {
		return false
	}
	for i := 1; i < len(w); i++ {
		switch w[i] {
		case 'U', 'G':
			return true
		case 'b', 'i', 'k', 'X': // the rest is their value
			return false
		}
	}
	return false
}
