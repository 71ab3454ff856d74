package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

func TestExpand(t *testing.T) {
	values := []variable{
		data("$DEVICE", "/dev/x"), data("$DEVICE_LIST", ""), data("$DEVICE1", "one"),
		data("$DEVICE_NUM", "0"), data("$DEVICE_NUM-1", "-1"), data("$INDEX", "3"),
	}
	overrides := map[string]string{
		"$A": "<$B>", "$B": "$C", "$C": "c", "$INDEX_TEXT": "i$INDEX", "$DEV": "override",
	}
	tests := []struct {
		name, in string
		which    scope
		want     string
	}{
		{"nothing to do", "plain", everything, "plain"},
		{"empty", "", everything, ""},
		{"data", "a $DEVICE b", everything, "a /dev/x b"},
		{"longest key wins", "$DEVICE_LIST|$DEVICE_NUM-1|$DEVICE_NUM|$DEVICE", everything, "|-1|0|/dev/x"},
		{"a key is a prefix of the text", "$DEVICE10", everything, "one0"},
		{"no word boundary needed", "$DEVICEs", everything, "/dev/xs"},
		{"shorter override does not hide a longer built-in", "$DEVICE $DEV", everything, "/dev/x override"},
		{"nested", "$A", everything, "<c>"},
		{"nested to data", "$INDEX_TEXT", everything, "i3"},
		{"unknown stays", "$HOME ${DEVICE} $(date) $ $$DEVICE", everything, "$HOME ${DEVICE} $(date) $ $/dev/x"},
		{"text only", "$A $DEVICE $INDEX_TEXT", textOnly, "<c> $DEVICE i$INDEX"},
		{"data only", "$A $DEVICE", dataOnly, "$A /dev/x"},
		{"dollar at the end", "x$", everything, "x$"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 10 { // with a different map order each time
				got, err := newVariables(values, overrides).expand(tt.in, tt.which)
				if err != nil || got != tt.want {
					t.Fatalf("expand(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
				}
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	v := newVariables([]variable{data("$X", "built-in"), data("$MOUNT_PATH", "built-in")},
		map[string]string{"$X": "override", "$MOUNT_PATH": "override"}).with("$MOUNT_PATH", "operation", false)
	got, err := v.expand("$X $MOUNT_PATH", everything)
	if want := "override operation"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// nest returns n variables, each of which refers to the next one; the last is "end".
func nest(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprintf("$V%c", 'A'+i)] = fmt.Sprintf("$V%c", 'A'+i+1)
	}
	out[fmt.Sprintf("$V%c", 'A'+n-1)] = "end"
	return out
}

func TestExpandLimit(t *testing.T) {
	if got, err := newVariables(nil, nest(maxPasses)).expand("$VA", everything); err != nil || got != "end" {
		t.Errorf("%d levels: %q, %v, want end", maxPasses, got, err)
	}
	_, err := newVariables(nil, nest(maxPasses+1)).expand("$VA", everything)
	wantError(t, err, dws.Major, "$VA -> $VB -> $VC -> $VD -> $VE -> $VF -> $VG")
}

func TestExpandCycles(t *testing.T) {
	tests := []struct {
		name, in  string
		overrides map[string]string
		want      string
	}{
		{"itself", "x $A", map[string]string{"$A": "a$A"}, "$A -> $A"},
		{"two", "$B", map[string]string{"$A": "$B", "$B": "$A"}, "$B -> $A -> $B"},
		{"behind a harmless one", "$OK $A", map[string]string{"$OK": "ok", "$A": "$OK$B", "$B": "$C", "$C": "$OK $B"}, "$A -> $B -> $C -> $B"},
		{"growing", "$A", map[string]string{"$A": "$A$A"}, "$A -> $A"},
		{"joined from two pieces", "$JK", map[string]string{"$J": "$L", "$LK": "$JK"}, "remains after 6 passes of expansion"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newVariables(nil, tt.overrides).expand(tt.in, everything)
			wantError(t, err, dws.Major, tt.want)
		})
	}
}

func TestExpandSize(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	if got, err := newVariables(nil, nil).expand(long, everything); err != nil || got != long {
		t.Errorf("the longest line: %d bytes, %v", len(got), err)
	}
	_, err := newVariables(nil, nil).expand(long+"x", everything)
	wantError(t, err, dws.Major, "too long")
	_, err = newVariables([]variable{data("$D", "dddd")}, nil).expand(long[:maxLine-4]+"$D$D", everything)
	wantError(t, err, dws.Major, "expand to more than")
	// With 1000 references to the previous level each, level 3 would be a gigabyte.
	bomb := map[string]string{
		"$A": strings.Repeat("$B", 1000), "$B": strings.Repeat("$C", 1000), "$C": strings.Repeat("x", 1000),
	}
	_, err = newVariables(nil, bomb).expand("$A", everything)
	wantError(t, err, dws.Major, "expand to more than")
}

func TestCheckOverrides(t *testing.T) {
	many := map[string]string{}
	for i := range maxOverrides + 1 {
		many[fmt.Sprintf("$K%d", i)] = ""
	}
	tests := []struct {
		name      string
		overrides map[string]string
		want      string
	}{
		{"none", nil, ""},
		{"good", map[string]string{"$VG_NAME": "x", "$DEVICE_NUM-1": ""}, ""},
		{"empty key", map[string]string{"": "x"}, `invalid key ""`},
		{"only a dollar", map[string]string{"$": "x"}, `invalid key "$"`},
		{"no dollar", map[string]string{"VG": "x"}, `invalid key "VG"`},
		{"syntax", map[string]string{"$A;": "x"}, `invalid key "$A;"`},
		{"too long", map[string]string{"$" + strings.Repeat("A", maxKey): "x"}, "invalid key"},
		{"too many", many, "257 entries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := checkOverrides(tt.overrides)
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			wantError(t, err, dws.Major, tt.want)
		})
	}
}

// FuzzSubstitute checks that the expansion of any text with any variables ends, is
// bounded, leaves no known variable, and always has the same result.
func FuzzSubstitute(f *testing.F) {
	f.Add("$A $B", "$A", "$B", "$B", "x")
	f.Add("$A", "$A", "$A$A", "$B", "$A")
	f.Add("mount -o '$A' \"$B\" \\$A", "$A", "a b", "$AB", "$")
	f.Add("$DEVICE_LIST$DEVICE", "$DEVICE", "$DEVICE_LIST", "$DEVICE_LIST", "")
	f.Fuzz(func(t *testing.T, text, key1, value1, key2, value2 string) {
		overrides := map[string]string{key1: value1, key2: value2}
		if checkOverrides(overrides) != nil {
			return
		}
		v := newVariables([]variable{data("$DEVICE", "/dev/x"), data("$DEVICE_LIST", "")}, overrides)
		got, err := v.expand(text, everything)
		again, err2 := newVariables(v.list, overrides).expand(text, everything)
		if got != again || (err == nil) != (err2 == nil) {
			t.Errorf("two results: %q, %v and %q, %v", got, err, again, err2)
		}
		if err == nil && (len(got) > maxLine || v.has(got, everything)) {
			t.Errorf("expand left %q", got)
		}
		words, err := v.words(text)
		for _, w := range words {
			if err == nil && strings.ContainsAny(w, "$\x00\n") {
				t.Errorf("word %q", w)
			}
		}
	})
}

func TestWords(t *testing.T) {
	v := newVariables([]variable{
		data("$DEVICE", "/dev/x"), data("$EMPTY", ""), data("$NIDS", "1@tcp:2@tcp"), data("$FS", "fs"),
		// Checked data never looks like this, but even then it would be one word.
		data("$HOSTILE", "a b;c 'd"),
	}, map[string]string{"$OPTS": `-o 'a b',"c" -v`, "$NOTHING": ""})
	tests := []struct {
		name, in string
		want     []string
	}{
		{"blanks", "  a \t b  ", []string{"a", "b"}},
		{"new line at the end", "a\n", []string{"a"}},
		{"substitution", "$NIDS:/$FS $DEVICE", []string{"1@tcp:2@tcp:/fs", "/dev/x"}},
		{"data is not split", "$HOSTILE", []string{"a b;c 'd"}},
		{"administrator's text is split", "$OPTS $DEVICE", []string{"-o", "a b,c", "-v", "/dev/x"}},
		{"empty word is dropped", "a $EMPTY $NOTHING b", []string{"a", "b"}},
		{"empty quoted word stays", `a "$EMPTY" '' b`, []string{"a", "", "", "b"}},
		{"empty piece of a word", "a$EMPTY", []string{"a"}},
		{"single quotes", `'a "b" \ ;|&' c`, []string{`a "b" \ ;|&`, "c"}},
		{"substitution in quotes", `'$DEVICE' "$DEVICE"`, []string{"/dev/x", "/dev/x"}},
		{"double quotes", `"a 'b' \" \\ \x ;" c`, []string{`a 'b' " \ \x ;`, "c"}},
		{"backslash", `a\ b \; \\`, []string{"a b", ";", `\`}},
		{"escaped dollar still is a variable", `\$DEVICE "\$DEVICE"`, []string{"/dev/x", "/dev/x"}},
		{"continued line", "a \\\n b\\\nc \"d\\\ne\"", []string{"a", "bc", "de"}},
		{"quotes inside a word", `x='y z'w`, []string{"x=y zw"}},
		{"wildcards are ordinary", "* ? [a] ~ {a,b} !", []string{"*", "?", "[a]", "~", "{a,b}", "!"}},
		{"hash inside a word", "a#b", []string{"a#b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := v.words(tt.in)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("words(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestWordsRefused(t *testing.T) {
	v := newVariables([]variable{data("$DEVICE", "/dev/x")}, map[string]string{"$EVIL": "a; b"})
	const shell, unknown = "this command runs without a shell", "unknown variable"
	tests := []struct {
		in     string
		pieces []string
	}{
		{"a; b", []string{`";"`, shell}},
		{"a|b", []string{shell}},
		{"a&", []string{shell}},
		{"a <b", []string{shell}},
		{"a >b", []string{shell}},
		{"(a)", []string{shell}},
		{"a)", []string{shell}},
		{"a `b`", []string{shell}},
		{"\"`b`\"", []string{shell}},
		{"$(b)", []string{shell}},
		{`"$(b)"`, []string{shell}},
		{"$'b'", []string{shell}},
		{`$"b"`, []string{shell}},
		{"a\nb", []string{shell}},
		{"a # b", []string{shell}},
		{"$EVIL", []string{shell}},
		{"'a", []string{"unclosed '"}},
		{`"a`, []string{"unclosed \""}},
		{`a\`, []string{"backslash"}},
		{"a\x01", []string{"control character"}},
		{"'\x00'", []string{"control character"}},
		{"a$HOST_COUNT:b", []string{unknown, "$HOST_COUNT in"}},
		{"${DEVICE}", []string{unknown, "${DEVICE}"}},
		{"'$NONE'", []string{unknown, "$NONE"}},
		{"$", []string{unknown}},
		{"$$", []string{unknown}},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := v.words(tt.in)
			if err == nil {
				t.Fatalf("words(%q) = %q, want an error", tt.in, got)
			}
			wantError(t, err, dws.Major, tt.pieces...)
		})
	}
}
