package datamovement

import (
	"strings"
	"testing"
)

func TestRequestCheck(t *testing.T) {
	o := options(t, OptionsList)
	for _, c := range []struct {
		name   string
		change func(*Request)
		field  string // empty: passes
		text   string
	}{
		{"usual", func(*Request) {}, "", ""},
		{"slots unset", func(r *Request) { r.Slots, r.MaxSlots = 0, 0 }, "", ""},
		{"slots of the profile", func(r *Request) { r.Slots, r.MaxSlots = -1, -1 }, "", ""},
		{"slots without a maximum", func(r *Request) { r.Slots, r.MaxSlots = 8, 0 }, "", ""},
		{"slots negative", func(r *Request) { r.Slots = -2 }, "slots", "-1 is as in the profile"},
		{"slots smallest", func(r *Request) { r.Slots = -1 << 31 }, "slots", "-2147483648"},
		{"slots large", func(r *Request) { r.Slots = 65537 }, "slots", "65536"},
		{"maxSlots negative", func(r *Request) { r.MaxSlots = -2 }, "maxSlots", "-1 is"},
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
		{"source", func(r *Request) { r.Source = "/a;b" }, "source", "is made of"},
		{"destination", func(r *Request) { r.Destination = "/a/../b" }, "destination", ".."},
		{"dcpOptions", func(r *Request) { r.DCPOptions = "-x" }, "dcpOptions", "not an allowed option"},
		{"mpirunOptions", func(r *Request) { r.MPIRunOptions = "sh" }, "mpirunOptions", "neither"},
		{"profile", func(r *Request) { r.Profile = "fast.1" }, "", ""},
		{"profile with a slash", func(r *Request) { r.Profile = "../nnf-system/x" }, "profile", "a name has"},
		{"profile that ends badly", func(r *Request) { r.Profile = "a." }, "profile", "a name has"},
		{"key", func(r *Request) { r.Key = strings.Repeat("K", 63) }, "", ""},
		{"key too long", func(r *Request) { r.Key = strings.Repeat("k", 64) }, "request_key", "1 to 63"},
		{"key with a blank", func(r *Request) { r.Key = "a b" }, "request_key", "1 to 63"},
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
			wantFault(t, err, ErrInvalid, ReasonInvalidField, c.text)
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
		"nnf-dm-abcde": true, "nnf-dm-node-abcde": true, "somebody-elses": true, "": false, "a/b": false, "../x": false, "a b": false, "A": false, "a\n": false, "-a": false, "a..b": false,
		strings.Repeat("a", 254): false, strings.Repeat("a", 64): false, // a part between dots is at most 63
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

// Nobody's text reaches a message raw or at length.
func TestQuote(t *testing.T) {
	for s, want := range map[string]string{"a": `"a"`, "\x1b[2J": `"\x1b[2J"`, "é": `"\u00e9"`, strings.Repeat("x", 99): `"` + strings.Repeat("x", 80) + `..."`} {
		if got := quote(s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
