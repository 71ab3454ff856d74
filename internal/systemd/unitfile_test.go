package systemd

import (
	"errors"
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"--host=10.0.0.5":  "--host=10.0.0.5",
		"":                 `""`,
		"a b":              `"a b"`,
		"100%":             "100%%",
		"%n":               "%%n",
		"$HOME":            `"$$HOME"`,
		"${HOME}":          `"$${HOME}"`,
		`C:\n`:             `"C:\\n"`,
		`say "hi"`:         `"say \"hi\""`,
		"it's":             `"it's"`,
		";":                `";"`,
		"a;b":              `"a;b"`,
		"*":                `"*"`,
		"#x":               `"#x"`,
		"\\":               `"\\"`,
		"straße":           `"straße"`,
		"a\u00a0b":         "\"a\u00a0b\"",
		"@-+!:|":           `"@-+!:|"`,
		"--x=%%$$":         `"--x=%%%%$$$$"`,
		"-":                "-",
		"/lus/a,b:c@d+e%f": "/lus/a,b:c@d+e%%f",
	} {
		have, err := Quote(text)
		if err != nil || have != want {
			t.Errorf("%q became %s, want %s: %v", text, have, want, err)
		}
		if back, err := unquote(have); err != nil || len(back) != 1 || back[0] != text {
			t.Errorf("%s is read as %q, want %q: %v", have, back, text, err)
		}
	}
	for _, text := range []string{"a\nb", "a\tb", "\x7f", "\x00", "\xc3(", "\u0085"} {
		if have, err := Quote(text); err == nil {
			t.Errorf("%q became %s", text, have)
		}
	}
}

func TestQuoteProgram(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/bin/thing": "/usr/bin/thing", "/opt/my things/thing": `"/opt/my things/thing"`, "/opt/100%/thing": "/opt/100%%/thing",
		"/opt/$x/thing": "", "thing": "", "": "", "/opt/a\nb": "", "@/bin/thing": "",
	} {
		if have, err := quoteProgram(path); have != want || (err == nil) != (want != "") {
			t.Errorf("%q became %s, want %s: %v", path, have, want, err)
		}
	}
}

// FuzzQuote checks that accepted texts are quoted as one line and unquoted unchanged.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "a b", "%n $x ${y} \\ \" ' ;", "\n", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		word, err := Quote(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(word, "\n\r\x00") {
			t.Fatalf("%q became %q", text, word)
		}
		if back, err := unquote("/bin/x " + word + " end"); err != nil || len(back) != 3 || back[1] != text {
			t.Errorf("%q became %s, which is read as %q: %v", text, word, back, err)
		}
	})
}

func TestQuoteEnvironment(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"GOGC", "off", `"GOGC=off"`},
		{"EMPTY", "", `"EMPTY="`},
		{"A1", `a b"c\d`, `"A1=a b\"c\\d"`},
		{"A", "100%", `"A=100%%"`},
		{"A", "$HOME", `"A=$HOME"`},
		{"A", `"`, `"A=\""`},
		{"A", "a\nb", ""},
		{"1A", "x", ""},
		{"", "x", ""},
		{"A B", "x", ""},
		{"A=B", "x", ""},
	} {
		if have, err := QuoteEnvironment(tt.name, tt.value); have != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q=%q became %s, want %s: %v", tt.name, tt.value, have, tt.want, err)
		}
	}
}

// unquote parses a command line like systemd (systemd.service(5)): words, quotes, escapes,
// then specifiers and variables, which must not occur.
func unquote(line string) (words []string, err error) {
	var word strings.Builder
	inWord, quoted := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\':
			if i++; i == len(line) {
				return nil, errors.New("a backslash at the end")
			}
			if line[i] != '\\' && line[i] != '"' && line[i] != '\'' {
				return nil, errors.New("an escape: " + line[i:])
			}
			word.WriteByte(line[i])
			inWord = true
		case quoted != 0 && c == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quoted, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case c == ';' && !inWord && (i+1 == len(line) || line[i+1] == ' '):
			return nil, errors.New("a second command")
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quoted != 0 {
		return nil, errors.New("an open quote")
	}
	if inWord {
		words = append(words, word.String())
	}
	for i := range words {
		for _, special := range []string{"%", "$"} {
			if words[i], err = single(words[i], special); err != nil {
				return nil, err
			}
		}
	}
	return words, nil
}

// single replaces doubled characters by single ones, and fails for single characters.
func single(text, special string) (string, error) {
	text = strings.ReplaceAll(text, special+special, "\x00")
	if strings.Contains(text, special) {
		return "", errors.New("a single " + special)
	}
	return strings.ReplaceAll(text, "\x00", special), nil
}

// The arguments are appended to those of the shipped unit, and nothing else changes.
func TestRender(t *testing.T) {
	s := Service{Name: "thing"}
	for _, tt := range []struct{ shipped, args, want string }{
		{"/usr/bin/thing", "", "/opt/thing"},
		{"/usr/bin/thing", "--a --b=%c", "/opt/thing --a --b=%%c"},
		{"/usr/bin/thing --own $X", "", "/opt/thing --own $X"},
		{"/usr/bin/thing --own $X", "--a", "/opt/thing --own $X --a"},
	} {
		unit := Unit{"thing.service", "[Service]\nType=notify\nExecStart=" + tt.shipped + "\nExecReload=/bin/kill\n"}
		have, err := s.render(unit, "/opt/thing", strings.Fields(tt.args))
		if want := s.written() + "[Service]\nType=notify\nExecStart=" + tt.want + "\nExecReload=/bin/kill\n"; err != nil || have != want {
			t.Errorf("%+v: %v\n%s", tt, err, have)
		}
	}
	for _, text := range []string{"[Service]\n", "[Service]\nExecStart=/a\nExecStart=/b\n", "[Service]\nExecStart=/a \\\n  --b\n"} {
		if have, err := s.render(Unit{"thing.service", text}, "/opt/thing", nil); err == nil || !strings.Contains(err.Error(), "bug") {
			t.Errorf("%q became %q: %v", text, have, err)
		}
	}
}
