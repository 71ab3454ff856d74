package nodeset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	for _, tt := range []struct{ list, want string }{
		{"compute-01", "compute-01"},
		{"compute-[01-03,30]", "compute-01 compute-02 compute-03 compute-30"},
		{"c[8-11]", "c8 c9 c10 c11"},
		{"c[08-11]", "c08 c09 c10 c11"},
		{"c[008-11]", "!padded to different widths"},
		{"c[98-101]", "c98 c99 c100 c101"},
		{"c[098-101]", "c098 c099 c100 c101"},
		{"c[09-10,9-10]", "c09 c10 c9"},
		{"c[0-2]", "c0 c1 c2"},
		{"c[00-02]", "c00 c01 c02"},
		{"c[99-100]", "c99 c100"},
		{"c[01-100]", "!more"}, // see below
		{"[1-2]", "1 2"},
		{"x[0-1]c[0-1]b0n[0,1]", "x0c0b0n0 x0c0b0n1 x0c1b0n0 x0c1b0n1 x1c0b0n0 x1c0b0n1 x1c1b0n0 x1c1b0n1"},
		{"c[1-2].example.org", "c1.example.org c2.example.org"},
		{"c[1][2-3]", "c12 c13"},
		{"a,b[1-2],c", "a b1 b2 c"},
		{"b,a,b,a", "b a"},
		{"c[3,1,2,1-3]", "c3 c1 c2"},
		{"c[5]", "c5"},
		{"c[999999999999999999]", "c999999999999999999"},
		{"", "!empty"},
		{"a,,b", "!empty"},
		{"a,", "!empty"},
		{"c[]", "!not a number"},
		{"c[1-]", "!not a number"},
		{"c[-1]", "!not a number"},
		{"c[1,]", "!not a number"},
		{"c[a-b]", "!not a number"},
		{"c[1-2-3]", "!not a number"},
		{"c[ 1]", "!not a number"},
		{"c[+1]", "!not a number"},
		{"c[٣]", "!not a number"},
		{"c[1000000000000000000]", "!not a number"},
		{"c[3-1]", "!backwards"},
		{"c[1-03]", "!padded to different widths"},
		{"c[0-03]", "!padded to different widths"},
		{"c[001-02]", "!padded to different widths"},
		{"c[1", "![ without ]"},
		{"c1]", "!] without ["},
		{"c[[1]]", "!brackets inside"},
		{"c[1-999999999]", "!more than 65536 nodes"},
		{"c[0-999999999999999999]", "!more than 65536 nodes"},
		{"c[1-300][1-300]", "!more than 65536 nodes"},
		{"a[1-40000],b[1-40000]", "!more than 65536 nodes"},
		{strings.Repeat("[1-2]", 200), "!more than 65536 nodes"},
		{strings.Repeat("a", 250) + "[1-1000]", "!more than 253 characters"},
	} {
		got, err := Expand(tt.list)
		if tt.list == "c[01-100]" { // the padding is a minimum width
			if err != nil || len(got) != 100 || got[0] != "c01" || got[99] != "c100" {
				t.Errorf("%s: %v %v", tt.list, got, err)
			}
			continue
		}
		if why, bad := strings.CutPrefix(tt.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%.60q: %d names, %v", tt.list, len(got), err)
			}
		} else if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%.60q: %q %v", tt.list, got, err)
		}
	}
	if got, err := Expand("c[1-65536]"); err != nil || len(got) != MaxNodes {
		t.Errorf("%d names, %v", len(got), err)
	}
}

func TestExpandAll(t *testing.T) {
	got, err := ExpandAll([]string{"c[2-3]", "a", "c[1-2]"})
	if err != nil || strings.Join(got, " ") != "c2 c3 a c1" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := ExpandAll([]string{"c[1-40000]", "d[1-40000]"}); err == nil {
		t.Errorf("%d names", len(got))
	}
	if got, err := ExpandAll(nil); err != nil || got != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestFold(t *testing.T) {
	for _, tt := range []struct{ names, want string }{
		{"", ""},
		{"compute-01", "compute-01"},
		{"compute-03 compute-04 compute-05 compute-06 compute-07", "compute-[03-07]"},
		{"compute-02 compute-01 compute-30 compute-02", "compute-[01-02,30]"},
		{"c8 c9 c10 c11", "c[8-11]"},
		{"c08 c09 c10 c11", "c[08-11]"},
		{"c1 c01 c2 c02", "c[1-2,01-02]"},
		{"c99 c100", "c[99-100]"},
		{"c099 c100", "c[099-100]"},
		{"login a b", "login,a,b"},
		{"login-1 compute-1 login-2 compute-2", "login-[1-2],compute-[1-2]"},
		{"x0c0b0n0 x0c0b0n1 x0c1b0n0 x0c1b0n1", "x0c[0-1]b0n[0-1]"},
		{"x0c0b0n0 x0c0b0n1 x0c1b0n0", "x0c0b0n[0-1],x0c1b0n0"},
		{"a1 a1b1 a2 a1b2", "a[1-2],a1b[1-2]"},
		{"c1.example.org c2.example.org c1", "c[1-2].example.org,c1"},
		{"1 2 3", "[1-3]"},
		{"c12345678901234567890 c12345678901234567891", "c12345678901234567890,c12345678901234567891"},
	} {
		if got := Fold(strings.Fields(tt.names), 0); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.names, got, tt.want)
		}
	}
}

func TestFoldMost(t *testing.T) {
	names := strings.Fields("a b1 b2 c d1 d2 d3")
	for most, want := range map[int]string{0: "a,b[1-2],c,d[1-3]", 4: "a,b[1-2],c,d[1-3]", 3: "a,b[1-2],c and 3 more", 1: "a and 6 more"} {
		if got := Fold(names, most); got != want {
			t.Errorf("%d: %s, want %s", most, got, want)
		}
	}
}

// A list of nodes that are scattered over a large system is bounded as well.
func TestFoldScattered(t *testing.T) {
	for _, tt := range []struct {
		names string
		most  int
		want  string
	}{
		{"c1 c3 c5 c7", 4, "c[1,3,5,7]"},
		{"c1 c3 c5 c6 c7 c9", 3, "c[1,3,5-7] and 1 more"},
		{"c1 c3 c5 d1 d3 d5", 4, "c[1,3,5],d1 and 2 more"},
		{"c1 c3 c5 d1", 3, "c[1,3,5] and 1 more"},
		{"c1 c3 c5", 1, "c1 and 2 more"},
		{"x0c0 x0c2 x0c4 x2c0 x2c2 x2c4 y", 2, "x[0,2]c[0,2] and 3 more"},
	} {
		if got := Fold(strings.Fields(tt.names), tt.most); got != tt.want {
			t.Errorf("%s, %d items: %s, want %s", tt.names, tt.most, got, tt.want)
		}
	}
	var names []string
	for i := range 5000 {
		names = append(names, fmt.Sprintf("compute-%05d", 2*i))
	}
	if got := Fold(names, 4); got != "compute-[00000,00002,00004,00006] and 4996 more" {
		t.Error(got)
	}
}

// sorted returns the sorted names without duplicates.
func sorted(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }

// FuzzExpand checks that there are never more names than allowed, that none is too long or
// duplicate, and that the folded list expands to the same names.
func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"compute-[01-20,30]", "c[1-999999999]", "a[1-2]b[01-02],c", "[0-1][0-1]", "c[1-03]", "c[[1]]", "a,,b", "c[09-11,9-11]", "x1000c[0-7]s[0-7]b[0-1]n0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		names, err := Expand(list)
		if err != nil {
			if names != nil {
				t.Errorf("%q: %d names with %v", list, len(names), err)
			}
			return
		}
		if len(names) == 0 || len(names) > MaxNodes || len(sorted(names)) != len(names) {
			t.Fatalf("%q: %d names, %d different", list, len(names), len(sorted(names)))
		}
		for _, n := range names {
			if n == "" || len(n) > MaxName || strings.ContainsAny(n, "[],") {
				t.Fatalf("%q: %q", list, n)
			}
		}
		again, err := Expand(Fold(names, 0))
		if err != nil || !slices.Equal(sorted(again), sorted(names)) {
			t.Errorf("%q folds to %q: %d names of %d, %v", list, Fold(names, 0), len(again), len(names), err)
		}
	})
}

// FuzzFold checks that a folded list expands to the same set of names.
func FuzzFold(f *testing.F) {
	f.Add("compute-01 compute-02 compute-10 login")
	f.Add("1 01 001 2 02 10 010")
	f.Add("a1b1 a1b2 a2b1 a2b2 a3b1")
	f.Add("x9 x10 x09 x010 x99 x100 x0")
	f.Add("a00000000000000000000000001 a0 a00")
	f.Fuzz(func(t *testing.T, text string) {
		var names []string
		for n := range strings.FieldsSeq(text) {
			if len(n) <= MaxName && !strings.ContainsAny(n, "[],") {
				names = append(names, n)
			}
		}
		if len(names) == 0 || len(names) > MaxNodes {
			return
		}
		folded := Fold(names, 0)
		again, err := Expand(folded)
		if err != nil || !slices.Equal(sorted(again), sorted(names)) {
			t.Errorf("%q folds to %q, which expands to %q, %v", names, folded, again, err)
		}
	})
}

func TestFoldIsFast(t *testing.T) {
	var names []string
	for i := range MaxNodes {
		names = append(names, fmt.Sprintf("x%dc%ds%db0n%d", i/4096, i/512%8, i/2%256, i%2))
	}
	if got := Fold(names, 0); got != "x[0-15]c[0-7]s[0-255]b0n[0-1]" {
		t.Errorf("%.200s", got)
	}
}
