package datamovement

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// OptionMode determines which options callers may use.
type OptionMode string

// The modes. Every mode refuses characters with a meaning for a shell, and options
// that select the identity with which dcp copies.
const (
	OptionsList OptionMode = "list" // known options only
	OptionsNone OptionMode = "none" // no options
	// OptionsAny accepts every option. Some options of mpirun run programs, so every
	// user who may copy can become root on the rabbit: use it only on systems that
	// trust all users.
	OptionsAny OptionMode = "any"
)

// Options checks dcpOptions and mpirunOptions. A nil *Options allows no options.
type Options struct {
	mode        OptionMode
	dcp, mpirun *tool
}

// NewOptions returns the Options for a mode. dcp and mpirun are additional options
// for the mode list: a name with its dashes, followed by = if it takes a value
// ("--chunksize=", "-k=").
func NewOptions(mode OptionMode, dcp, mpirun []string) (*Options, error) {
	switch mode {
	case OptionsList, OptionsNone, OptionsAny:
	default:
		return nil, fmt.Errorf("unknown option mode %s: use list, none or any", text.Quote(string(mode)))
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

// CheckDCP returns an error for a text that must not follow dcp on the rabbit's
// command line.
func (o *Options) CheckDCP(given string) error { return o.check(&dcpTool, given) }

// CheckMPIRun returns an error for a text that must not follow mpirun.
func (o *Options) CheckMPIRun(given string) error { return o.check(&mpirunTool, given) }

const (
	maxOptions     = 1024 // bytes
	maxOptionWords = 64

	// The space separates options. No character is shell syntax in any position.
	optionPunctuation = " %+,-./:=@^_"
)

func (o *Options) check(t *tool, given string) error {
	if given == "" {
		return nil
	}
	if o == nil || o.mode == OptionsNone {
		return refused(t.field, given, "options of "+t.name+" are disabled on this system")
	}
	if len(given) > maxOptions {
		return refused(t.field, given, "at most 1024 bytes are allowed")
	}
	if !text.Only(given, optionPunctuation) {
		return refused(t.field, given, "only A-Z a-z 0-9 % + , - . / : = @ ^ _ and spaces are allowed, because the rabbit inserts the options into a command line")
	}
	words := strings.Fields(given)
	if len(words) > maxOptionWords {
		return refused(t.field, given, "at most 64 words are allowed")
	}
	for _, w := range words {
		switch {
		case strings.Trim(w, "-") == "":
			// The options of the profile that follow, such as --uid, would become operands.
			return refused(t.field, given, text.Quote(w)+" ends the options")
		case strings.Contains(w, "dcp") || strings.Contains(w, "mpirun"):
			// The rabbit inserts options after the first occurrence of these letters.
			return refused(t.field, given, text.Quote(w)+" contains the name of a program")
		case t.identity != nil && t.identity(w):
			return refused(t.field, given, text.Quote(w)+" would select the user or group of the copy, which the workflow determines")
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

// with returns the tool with additional options from the configuration.
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
			return nil, fmt.Errorf("invalid option %s of %s: use the name with its dashes, followed by = if it takes a value, such as --chunksize=", text.Quote(e), t.name)
		}
		if t.identity != nil && t.identity(name) {
			return nil, fmt.Errorf("option %s of %s cannot be allowed: it would let users copy as another user", text.Quote(e), t.name)
		}
		f := form{}
		if value {
			f = form{1, anyValue, "a value", "[A-Za-z0-9/^][A-Za-z0-9%+,./:=@^_-]*"}
		}
		out.options[name] = f
	}
	return &out, nil
}

// names returns the allowed options in order, for messages.
func (t *tool) names() string { return strings.Join(slices.Sorted(maps.Keys(t.options)), " ") }

// form describes the values of an option.
type form struct {
	values  int // number of words that follow the option
	check   func(values []string) bool
	rule    string // the values that check accepts, for messages
	pattern string // the same as a regular expression, except for the size of numbers and noFiles
}

// tool is a program that callers may pass options to.
type tool struct {
	name, field string
	options     map[string]form
	// short: single letters can be joined and have their value attached, as in
	// getopt(3). Otherwise - and -- before a name are equivalent.
	short    bool
	identity func(word string) bool // reports whether a word selects the user or group of the copy
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

// known refuses words that are neither an allowed option nor the value of one. It
// must parse the words as the program does; otherwise the program could read a value
// as an option.
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
			// After a single letter, the = is part of the value.
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

// letters splits joined single-letter options. It returns the last option and the
// value attached to it, if any.
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
			return refused(t.field, given, text.Quote(v)+" is not a valid value of "+name+": it must start with a letter, a digit, / or ^")
		}
	}
	if f.check != nil && !f.check(values) {
		return refused(t.field, given, text.Quote(strings.Join(values, " "))+" is not a valid value of "+name+", which needs "+f.rule)
	}
	return nil
}

func (t *tool) unknown(given, name string) error {
	return refused(t.field, given, text.Quote(name)+" is not an allowed option of "+t.name+"; allowed are "+t.names())
}

// anyValue is the rule for all values: a value that starts with a dash could be read
// as an option, a single colon as the start of another program.
func anyValue(v []string) bool {
	return v[0] != "" && (text.Alphanumeric(v[0][0]) || v[0][0] == '/' || v[0][0] == '^')
}

// dcpTool is dcp of mpiFileUtils (dcp(1)), without the options that read or write
// other files (--input, DAOS) or select the identity.
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
// rabbit, so options that name a program, a file, a host or an environment variable
// are not listed.
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
	size      = form{1, func(v []string) bool { return sizeText(v[0]) }, "a size such as 4MB", "[0-9]{1,19}[KMGTkmgt]?[Bb]?"}
	xattrs    = form{1, func(v []string) bool { return slices.Contains(xattrKinds, v[0]) }, "one of " + strings.Join(xattrKinds, " "), oneOf(xattrKinds)}
	placement = form{1, func(v []string) bool { return placementText(v[0]) }, "a placement such as core or ppr:2:node", "[A-Za-z0-9][A-Za-z0-9:,=-]*"}
	component = form{2, componentText, "one of the parameters " + strings.Join(components, " ") + " and a list of names",
		oneOf(components) + " +(\\^[A-Za-z0-9,._-]*|[A-Za-z0-9][A-Za-z0-9,._-]*)"}
)

func oneOf(words []string) string { return "(" + strings.Join(words, "|") + ")" }

var xattrKinds = []string{"none", "all", "non-lustre", "libattr"}

// components are the parameters of Open MPI that select transports and networks.
// Other parameters name programs that mpirun starts, or files that it reads.
var components = []string{"btl", "btl_tcp_if_exclude", "btl_tcp_if_include", "mtl", "oob_tcp_if_exclude", "oob_tcp_if_include", "pml"}

func number(most int) form {
	return form{1, func(v []string) bool {
		n, err := strconv.Atoi(v[0])
		return err == nil && n >= 0 && n <= most
	}, "a number of at most " + strconv.Itoa(most), fmt.Sprintf("[0-9]{1,%d}", len(strconv.Itoa(most)))}
}

// sizeText reports whether s is a decimal number, with or without a unit.
func sizeText(s string) bool {
	n := strings.TrimLeft(s, "0123456789")
	if len(n) == len(s) || len(s)-len(n) > 19 {
		return false
	}
	unit := strings.ToUpper(n)
	return unit == "" || slices.Contains([]string{"B", "K", "KB", "M", "MB", "G", "GB", "T", "TB"}, unit)
}

// placementText refuses placements that read a file: rankfile and seq.
func placementText(s string) bool {
	l := strings.ToLower(s)
	return text.Only(s, ":,=-") && !strings.Contains(l, "file") && !strings.Contains(l, "seq")
}

func componentText(v []string) bool {
	// ^ before a list means all except these.
	return slices.Contains(components, v[0]) && text.Only(strings.TrimPrefix(v[1], "^"), ",._-")
}

// dcpIdentity reports whether getopt_long(3) could read the word as --uid or --gid,
// or as their letters: names can be abbreviated, letters can be joined.
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
		case 'b', 'i', 'k', 'X': // the rest of the word is the value
			return false
		}
	}
	return false
}
