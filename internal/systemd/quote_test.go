package systemd

import (
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
		if have, err := QuoteProgram(path); have != want || (err == nil) != (want != "") {
			t.Errorf("%q became %s, want %s: %v", path, have, want, err)
		}
	}
}

// FuzzQuote: whatever is accepted is one line, and comes back as it was.
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
