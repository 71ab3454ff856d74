package datamovement

import (
	"strings"
	"testing"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

func TestRequestCheck(t *testing.T) {
	o := options(t, OptionsList)
	for _, c := range []struct {
		name   string
		change func(*Request)
		field  string // empty: accepted
		text   string
	}{
		{"usual", func(*Request) {}, "", ""},
		{"slots unset", func(r *Request) { r.Slots, r.MaxSlots = 0, 0 }, "", ""},
		{"slots as in the profile", func(r *Request) { r.Slots, r.MaxSlots = -1, -1 }, "", ""},
		{"slots without a maximum", func(r *Request) { r.Slots, r.MaxSlots = 8, 0 }, "", ""},
		{"slots negative", func(r *Request) { r.Slots = -2 }, "slots", "-1 (as in the profile)"},
		{"slots smallest", func(r *Request) { r.Slots = -1 << 31 }, "slots", "-2147483648"},
		{"slots large", func(r *Request) { r.Slots = 65537 }, "slots", "65536"},
		{"maxSlots negative", func(r *Request) { r.MaxSlots = -2 }, "maxSlots", "-1 (as in the profile)"},
		{"maxSlots less than slots", func(r *Request) { r.Slots, r.MaxSlots = 8, 7 }, "maxSlots", "less than slots, 8"},
		{"no workflow", func(r *Request) { r.Workflow = WorkflowRef{} }, "workflow", "workflow is missing"},
		{"no name", func(r *Request) { r.Workflow.Name = "" }, "workflow.name", ""},
		{"no namespace", func(r *Request) { r.Workflow.Namespace = "" }, "workflow.namespace", ""},
		{"name with a slash", func(r *Request) { r.Workflow.Name = "../x" }, "workflow.name", ""},
		{"name too long for a label", func(r *Request) { r.Workflow.Name = strings.Repeat("a", 64) }, "workflow.name", "1 to 63"},
		{"upper case", func(r *Request) { r.Workflow.Name = "Job7" }, "workflow.name", ""},
		{"namespace with a dot", func(r *Request) { r.Workflow.Namespace = "a.b" }, "workflow.namespace", ""},
		{"no source", func(r *Request) { r.Source = "" }, "source", "source is missing"},
		{"no destination", func(r *Request) { r.Destination = "" }, "destination", "destination is missing"},
		{"source", func(r *Request) { r.Source = "/a;b" }, "source", "are allowed, because"},
		{"destination", func(r *Request) { r.Destination = "/a/../b" }, "destination", ".."},
		{"dcpOptions", func(r *Request) { r.DCPOptions = "-x" }, "dcpOptions", "not an allowed option"},
		{"mpirunOptions", func(r *Request) { r.MPIRunOptions = "sh" }, "mpirunOptions", "neither"},
		{"profile", func(r *Request) { r.Profile = "fast.1" }, "", ""},
		{"profile with a slash", func(r *Request) { r.Profile = "../nnf-system/x" }, "profile", "a name consists of"},
		{"profile with a final dot", func(r *Request) { r.Profile = "a." }, "profile", "a name consists of"},
		{"key", func(r *Request) { r.Key = strings.Repeat("K", 63) }, "", ""},
		{"key too long", func(r *Request) { r.Key = strings.Repeat("k", 64) }, "request_key", "1 to 63"},
		{"key with a space", func(r *Request) { r.Key = "a b" }, "request_key", "1 to 63"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := parts("gfs2").Request
			c.change(&r)
			err := r.Check(o)
			if c.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantFault(t, err, ErrInvalid, v2.ErrorReason_INVALID_FIELD, c.text)
			if f := Explain(err); f.Field != c.field || !strings.HasPrefix(f.Error(), c.field+" ") {
				t.Errorf("field %q, %v", f.Field, err)
			}
		})
	}
}

func TestCheckOptional(t *testing.T) {
	for w, ok := range map[WorkflowRef]bool{{}: true, {Name: "a"}: true, {Namespace: "a"}: true, job7: true, {Name: "A"}: false, {Namespace: "a/b"}: false} {
		if (w.CheckOptional() == nil) != ok {
			t.Error(w)
		}
	}
}

func TestCheckUID(t *testing.T) {
	for uid, ok := range map[string]bool{
		"nnf-dm-abcde": true, "nnf-dm-node-abcde": true, "other-users": true, "": false, "a/b": false, "../x": false, "a b": false, "A": false, "a\n": false, "-a": false, "a..b": false,
		strings.Repeat("a", 254): false, strings.Repeat("a", 64): false, // a part between dots has at most 63 characters
	} {
		if err := CheckUID(uid); ok != (err == nil) {
			t.Errorf("%q: %v", uid, err)
		}
	}
	for uid, want := range map[string]string{"nnf-dm-node-x": "r", "nnf-dm-x": "nnf-dm-system", "nnf-dm-node": "nnf-dm-system", "": "nnf-dm-system"} {
		if got := Namespace(uid, "r"); got != want {
			t.Errorf("%q: %s", uid, got)
		}
	}
}

func TestParsePath(t *testing.T) {
	grammar := compile(options(t, OptionsList).Grammars().Path)
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
		"/a\xff":                           "only letters, digits",
		"/a\u00a0b":                        "only letters, digits",
		"/a\u2028b":                        "only letters, digits",
		"/a\u202eb":                        "only letters, digits",
		"/a\u3000b":                        "only letters, digits",
		"/a/$(touch x)":                    "only letters, digits",
		"/mnt/nnf/x/`id`":                  "only letters, digits",
	} {
		got, err := parsePath("source", p)
		grammar.same(t, p, err)
		if want == "" {
			if err != nil || got.String() != p {
				t.Errorf("%q: %q %v", p, got, err)
			}
			continue
		}
		wantFault(t, err, ErrInvalid, v2.ErrorReason_INVALID_FIELD, want)
		if f := Explain(err); f.Field != "source" || !strings.HasPrefix(f.Error(), "source ") {
			t.Errorf("%q: the error does not name the field: %v", p, err)
		}
	}
}

// Doubled slashes and dots are removed; a final slash, or a final dot with the same
// meaning, is kept.
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

// Characters with a meaning for a shell, and all control characters, are refused.
func TestPathCharacters(t *testing.T) {
	bad := ";&|$`'\"\\[](){}<>*?~#! \x7f"
	for c := byte(0); c < ' '; c++ {
		bad += string(rune(c))
	}
	for _, c := range bad {
		if _, err := parsePath("source", "/a/x"+string(c)+"y"); err == nil {
			t.Errorf("%q is accepted", c)
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
