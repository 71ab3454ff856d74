package node

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCaptureKeepsBothEnds(t *testing.T) {
	for _, tt := range []struct {
		in   []string
		want string
	}{
		{nil, ""},
		{[]string{"abc"}, "abc"},
		{[]string{"abcd", "efgh"}, "abcdefgh"}, // exactly the limit
		{[]string{"abcdefghi"}, "abcd\n… 1 bytes left out …\nfghi"},
		{[]string{"abcdef", "ghijkl", "m"}, "abcd\n… 5 bytes left out …\njklm"},
		{[]string{"a", "bcdefghijklmnopqrstuvwxyz", "0", "1"}, "abcd\n… 20 bytes left out …\nyz01"},
	} {
		c := capture{limit: 8}
		for _, s := range tt.in {
			if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
		}
		if got := c.String(); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

// However the output comes in pieces, the ends are the same.
func TestCapturePieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		limit := 1 + r.IntN(40)
		var all strings.Builder
		c := capture{limit: limit}
		for range r.IntN(30) {
			p := make([]byte, r.IntN(50))
			for i := range p {
				p[i] = byte('a' + r.IntN(26))
			}
			all.Write(p)
			c.Write(p)
		}
		want := all.String()
		if n := len(want) - limit; n > 0 {
			want = fmt.Sprintf("%s\n… %d bytes left out …\n%s", want[:limit/2], n, want[len(want)-(limit-limit/2):])
		}
		if got := c.String(); got != want {
			t.Fatalf("round %d, limit %d: got %q, want %q", round, limit, got, want)
		}
	}
}

func TestCaptureIsValidUTF8(t *testing.T) {
	c := capture{limit: 11}
	c.Write([]byte("ok\xff\xfe ééééééééé\xc3"))
	if s := c.String(); !utf8.ValidString(s) || !strings.HasPrefix(s, "ok\uFFFD") {
		t.Errorf("%q", s)
	}
}
