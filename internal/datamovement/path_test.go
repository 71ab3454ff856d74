package datamovement

import (
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	for p, want := range map[string]string{
		"/a": "", "/a/b.c/d-e_f": "", "/a/": "", "/": "", "/a/..b/c..": "", "/a/.hidden": "", "/a=b,c:d@e%f+g^h": "",
		"/größe/файл/数据/é": "", "/a/e\u0301": "", "/" + strings.Repeat("n", 255): "",
		"":      "is missing",
		"a/b":   "must be an absolute path",
		"./a":   "must be an absolute path",
		"~/a":   "must be an absolute path",
		"-a":    "must be an absolute path",
		"/a/..": "must not contain ..", "/a/../b": "must not contain ..", "/..": "must not contain ..", "/a/../../etc/shadow": "must not contain ..",
		"/a//../b": "must not contain ..", "/a/./..": "must not contain ..",
		"/" + strings.Repeat("a/", 2048):   "4095 bytes",
		"/" + strings.Repeat("n", 256):     "255 bytes",
		"/" + strings.Repeat("abc/", 1024): "4095 bytes",
		"/a\xff":                           "is made of letters",
		"/a\u00a0b":                        "is made of letters",
		"/a\u2028b":                        "is made of letters",
		"/a\u202eb":                        "is made of letters",
		"/a\u3000b":                        "is made of letters",
		"/a/$(touch x)":                    "is made of letters",
		"/mnt/nnf/x/`id`":                  "is made of letters",
	} {
		got, err := parsePath("source", p)
		if want == "" {
			if err != nil || got.String() != p {
				t.Errorf("%q: %q %v", p, got, err)
			}
			continue
		}
		wantFault(t, err, ErrInvalid, ReasonInvalidField, want)
		if f := Explain(err); f.Field != "source" || !strings.HasPrefix(f.Error(), "source ") {
			t.Errorf("%q: the error does not name the field: %v", p, err)
		}
	}
}

// Doubled slashes and dots are taken out; that there was a slash at the end, or a
// dot that means the same, is kept ("Do better" 6).
func TestParsePathCleans(t *testing.T) {
	for p, want := range map[string]string{
		"/a//b": "/a/b", "//a": "/a", "/a//": "/a/", "/a/./b": "/a/b", "/./a": "/a", "/a/.": "/a/", "/a/./": "/a/", "/a/.//./": "/a/",
		"//": "/", "/.": "/", "///": "/", "/a///b//c/": "/a/b/c/", "/a.": "/a.", "/a/.b": "/a/.b", "/a/...": "/a/...",
	} {
		if got, err := parsePath("source", p); err != nil || got.String() != want {
			t.Errorf("%q: %q %v, want %q", p, got, err, want)
		}
	}
}

// Each character that row 1 of "Do better" forbids, and all control characters.
func TestPathCharacters(t *testing.T) {
	bad := ";&|$`'\"\\[](){}<>*?~#! \x7f"
	for c := byte(0); c < ' '; c++ {
		bad += string(rune(c))
	}
	for _, c := range bad {
		if _, err := parsePath("source", "/a/x"+string(c)+"y"); err == nil {
			t.Errorf("%q passes", c)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		p, dir, rest string
		ok           bool
	}{
		{"/a/b", "/a", "/b", true}, {"/a", "/a", "", true}, {"/ab", "/a", "", false}, {"/", "/", "", true}, {"/a", "/", "/a", true},
		{"/a", "/a/b", "", false}, {"/mnt/nnf/U-10/x", "/mnt/nnf/U-1", "", false},
	} {
		rest, ok := within(c.p, c.dir)
		if ok != c.ok || ok && rest != c.rest {
			t.Errorf("%q in %q: %q %v", c.p, c.dir, rest, ok)
		}
	}
}
