package service

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
		have, err := quote(text)
		if err != nil || have != want {
			t.Errorf("%q became %s, want %s: %v", text, have, want, err)
		}
		if back, err := unquote(have); err != nil || len(back) != 1 || back[0] != text {
			t.Errorf("%s is read as %q, want %q: %v", have, back, text, err)
		}
	}
	for _, text := range []string{"a\nb", "a\tb", "\x7f", "\x00", "\xc3(", "\u0085"} {
		if have, err := quote(text); err == nil {
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

// The arguments stand behind those of the shipped unit, and nothing else of it
// changes.
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
		if have, err := s.render(Unit{"thing.service", text}, "/opt/thing", nil); err == nil || !strings.Contains(err.Error(), "defect") {
			t.Errorf("%q became %q: %v", text, have, err)
		}
	}
}

// FuzzQuote: whatever is accepted is one line, and comes back as it was.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "a b", "%n $x ${y} \\ \" ' ;", "\n", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		word, err := quote(text)
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
