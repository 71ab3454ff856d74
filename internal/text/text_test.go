package text

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ in, line, text string }{
		{"plain text, ü, 漢字, 100 %", "plain text, ü, 漢字, 100 %", "plain text, ü, 漢字, 100 %"},
		{" \n cut \r\n", "cut", " \n cut"},
		{"a\nb\tc", `a\nb\tc`, "a\nb\tc"},
		{"\x1b]0;title\x07", `\x1b]0;title\a`, `\x1b]0;title\a`},
		{"\u009b31m", `\u009b31m`, `\u009b31m`},
		{"\u202egpj.exe", `\u202egpj.exe`, `\u202egpj.exe`},
		{"\xff\xc3(", `\xff\xc3(`, `\xff\xc3(`},
		{"over\rwritten", `over\rwritten`, `over\rwritten`},
		{"\x00\x7f\u2028x", `\x00\x7f\u2028x`, `\x00\x7f\u2028x`},
		{"a\ufffdb", "a\ufffdb", "a\ufffdb"}, // a replacement character in the input is harmless
		{"a\ufffdb\xff", "a\ufffdb\\xff", "a\ufffdb\\xff"},
		{"", "", ""},
	} {
		if got := Line(tt.in); got != tt.line {
			t.Errorf("Line(%q) = %q, want %q", tt.in, got, tt.line)
		}
		if got := Text(tt.in); got != tt.text {
			t.Errorf("Text(%q) = %q, want %q", tt.in, got, tt.text)
		}
	}
}

// Escape keeps white space, which belongs to the message.
func TestEscapeKeepsSpace(t *testing.T) {
	if got, want := Escape("  a\tb \n"), `  a\tb \n`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCutAndClip(t *testing.T) {
	for _, tt := range []struct {
		in        string
		limit     int
		cut, clip string
	}{
		{"", 0, "", ""},
		{"12345", 5, "12345", "12345"},
		{"123456", 5, "12345", "12345…"},
		{"1234äx", 5, "1234", "1234…"}, // ä is not split
		{"123äxx", 5, "123ä", "123ä…"},
		{"漢字", 4, "漢", "漢…"},
		{"ä", 1, "", "…"},
		{"\x80\x80\x80\x80\x80\x80\x80", 5, "\x80", "\x80…"}, // not UTF-8: any cut is correct
	} {
		if got := Cut(tt.in, tt.limit); got != tt.cut {
			t.Errorf("Cut(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.cut)
		}
		if got := Clip(tt.in, tt.limit); got != tt.clip {
			t.Errorf("Clip(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.clip)
		}
	}
}

func TestOnly(t *testing.T) {
	for _, tt := range []struct {
		s, others string
		want      bool
	}{
		{"", "", true}, {"azAZ09", "", true}, {"a-b", "-", true}, {"a-b", "", false}, {"a b", "-", false},
		{"@", "", false}, {"[", "", false}, {"`", "", false}, {"{", "", false}, {"/", "", false}, {":", "", false}, {"é", "", false}, {"a\x00", "", false},
	} {
		if got := Only(tt.s, tt.others); got != tt.want {
			t.Errorf("%q, %q: %v", tt.s, tt.others, got)
		}
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"nnf-dm-node-1": "nnf-dm-node-1", "": "''", "a b": "'a b'", "vg_name=v_0": "vg_name=v_0", "$(x)": "'$(x)'", "it's": `'it'\''s'`, "a\\n": "'a\\n'",
	} {
		if got := ShellWord(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	long := strings.Repeat("x", 79)
	for in, want := range map[string]string{
		"":                `""`,
		"a b":             `"a b"`,
		"\x1b[31m\n":      `"\x1b[31m\n"`,
		"ü\xff":           `"\u00fc\xff"`,
		long + "y":        `"` + long + `y"`,
		long + "yz":       `"` + long + `y..."`,
		long + "ü":        `"` + long + `..."`,
		"\u202e" + "b\"c": `"\u202eb\"c"`,
	} {
		if got := Quote(in); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
		if got := Unquoted(in); `"`+got+`"` != want {
			t.Errorf("Unquoted(%q) = %s, want %s without quotes", in, got, want)
		}
	}
}

func harmless(s string) bool {
	for _, r := range s {
		if r != '\n' && (!strconv.IsPrint(r) || r == utf8.RuneError) {
			return false
		}
	}
	return utf8.ValidString(s)
}

// JSON keeps all characters, in a form that is safe for terminals.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[31m", "\u009b5n", "\u202e", "\U000e0001 tag", "<&>", "\xff", "\n\t", "\U0001f600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b bytes.Buffer
		if err := JSON(&b, map[string]string{"k": s}); err != nil {
			t.Fatal(err)
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil {
			t.Fatalf("%v: %q", err, b.String())
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && back["k"] != want {
			t.Errorf("%q became %q", s, back["k"])
		}
		if plain := strings.ReplaceAll(b.String(), "\ufffd", ""); !harmless(plain) {
			t.Errorf("%q is written as %q", s, b.String())
		}
		if strings.Count(Line(s), "\n") != 0 || !harmless(strings.ReplaceAll(Line(s), "\ufffd", "")) {
			t.Errorf("Line(%q) = %q", s, Line(s))
		}
	})
}

func TestUnquoted(t *testing.T) {
	for _, s := range []string{"", "plain", "a\nb\"c", strings.Repeat("x", 200)} {
		if got, want := `"`+Unquoted(s)+`"`, Quote(s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	word := strings.Repeat("x", 39)
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{" one\ntwo ", "> one two\n"},
		{word + " " + word + " a", "> " + word + "\n  " + word + " a\n"},
		{strings.Repeat("y", 90) + " z", "> " + strings.Repeat("y", 90) + "\n  z\n"},
		{strings.Repeat("ä", 76) + " é", "> " + strings.Repeat("ä", 76) + " é\n"},
	} {
		if got := Wrap(80, "> ", "  ", c.text); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

// A document of another version is refused before its fields are decoded.
func TestParseJSON(t *testing.T) {
	type document struct {
		Version int `json:"version"`
		Count   int `json:"count"`
	}
	if d, err := ParseJSON[document]([]byte(`{"version":2,"count":3,"new":true}`), 2); err != nil || *d != (document{2, 3}) {
		t.Errorf("%+v %v", d, err)
	}
	for data, want := range map[string]string{
		`{"version":3,"count":"x"}`: "unsupported version 3 (this program reads version 2)",
		`{}`:                        "unsupported version 0 (this program reads version 2)",
		`{"version":2,"count":"x"}`: "invalid document: json: ",
		`mounts`:                    "not JSON: ",
		``:                          "not JSON: ",
	} {
		if _, err := ParseJSON[document]([]byte(data), 2); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", data, err)
		}
	}
}
