package plan

import (
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

func TestWords(t *testing.T) {
	v := newVariables([]variable{
		data("$DEVICE", "/dev/x"), data("$EMPTY", ""), data("$NIDS", "1@tcp:2@tcp"), data("$FS", "fs"),
		// Data never is like this, because it is checked; if it were, it would
		// still be one word.
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
	const shell, unknown = "use a hook command for shell syntax", "unknown variable"
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
