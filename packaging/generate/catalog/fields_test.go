package catalog

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

const root = "../../.."

// about are the fields that the loggers of internal/clientmount add to each record.
var about = map[string][]string{
	"a.log": {"CLIENTMOUNT", "WORKFLOW"},
	"g.log": {"CLIENTMOUNT", "WORKFLOW"},
	"t.log": {"CLIENTMOUNT", "WORKFLOW"},
	"log":   {"CLIENTMOUNT", "WORKFLOW"},
	"r.log": {"CLIENTMOUNT", "WORKFLOW", "MOUNT_PATH"},
	"e.log": {"CLIENTMOUNT", "WORKFLOW", "MOUNT_PATH"},
}

// ofDaemon are the fields of the records that package daemon logs for a daemon, by the
// call or structure field that contains the event in the code of the daemon.
var ofDaemon = map[string][]string{
	"Started":       {"VERSION", "NODE", "CONFIG", "RUNTIME"}, // daemon.Process
	"ConfigRefused": {"ERROR"},                                // daemon.Program
	"Event":         {"HINT"},                                 // daemon.Refusal
}

// alias are variables of the code that hold an event.
var alias = map[string][]string{"event": {"eventFailed", "eventRefused"}}

// Each field that a program logs is explained, once, and no other field is.
func TestFieldsAreExplained(t *testing.T) {
	shared := []string{"internal/kube", "internal/daemon"}
	logged := func(dirs ...string) (names []string) {
		for _, key := range manual.LogKeys(t, root, dirs...) {
			if key == "duration" { // the journal's name says the unit
				key = "duration_ms"
			}
			names = append(names, strings.ToUpper(key))
		}
		return names
	}
	all := map[string][]string{}
	for program, dirs := range map[string][]string{
		"clientmountd": {"internal/clientmount", "internal/node"},
		"nnf-dm":       {"internal/datamovement/server", "internal/unixsocket"},
	} {
		own := logged(dirs...)
		want := slices.Concat(own, logged(shared...), []string{"EVENT", "MESSAGE_ID"})
		slices.Sort(want)
		all[program] = own
		var got []string
		for _, f := range FieldsOf(program) {
			got = append(got, f.Name)
			if f.Meaning == "" || strings.ContainsAny(f.Meaning, "|\n") {
				t.Errorf("%s: the meaning of %s is malformed: %q", program, f.Name, f.Meaning)
			}
		}
		if want = slices.Compact(want); !slices.Equal(got, want) {
			t.Errorf("%s: explained\n%q\nlogged\n%q", program, got, want)
		}
	}
	both := logged(shared...)
	for _, f := range daemonFields {
		if !slices.Contains(both, f.Name) && f.Name != "EVENT" && f.Name != "MESSAGE_ID" &&
			(!slices.Contains(all["clientmountd"], f.Name) || !slices.Contains(all["nnf-dm"], f.Name)) {
			t.Errorf("%s is not a field of both daemons", f.Name)
		}
	}
}

// journalctl shows the bare name of a field that is not in the record. So a text may
// only name fields that every record of its kind has.
func TestFieldsAreInEveryRecord(t *testing.T) {
	for _, g := range []struct {
		texts []explanation
		dirs  []string
		base  map[string][]string
	}{
		{clientmountTexts, []string{"internal/clientmount"}, about},
		{serverTexts, []string{"internal/datamovement/server"}, nil},
		{daemonTexts, []string{"internal/daemon", "cmd/clientmountd"}, nil},
	} {
		always := recorded(t, g.base, g.dirs...)
		idents := events(t, g.dirs[0])
		for _, x := range g.texts {
			fields, logged := always[idents[x.name]]
			if !logged {
				t.Errorf("nothing in %v logs %s", g.dirs, x.name)
			}
			for _, f := range (Kind{Subject: x.subject, What: x.what, Job: x.job, Do: x.todo}).Fields() {
				if !slices.Contains(fields, f) {
					t.Errorf("%s: not every record has %s; all have %q", x.name, f, fields)
				}
			}
		}
	}
}

// recorded finds the log calls with an event. It returns, for the variable of each event,
// the fields that all of its calls have.
func recorded(t *testing.T, base map[string][]string, dirs ...string) map[string][]string {
	always := map[string][]string{}
	record := func(id string, fields []string) {
		for _, id := range append(alias[id], id) {
			if old, again := always[id]; again {
				always[id] = slices.DeleteFunc(old, func(f string) bool { return !slices.Contains(fields, f) })
			} else {
				always[id] = slices.Clone(fields)
			}
		}
	}
	manual.Inspect(t, root, func(n ast.Node) {
		if kv, ok := n.(*ast.KeyValueExpr); ok && ofDaemon[dotted(kv.Key)] != nil {
			record(dotted(kv.Value), ofDaemon[dotted(kv.Key)])
		}
		call, ok := n.(*ast.CallExpr)
		f, isMethod := ast.Expr(nil), false
		if ok {
			var s *ast.SelectorExpr
			if s, isMethod = call.Fun.(*ast.SelectorExpr); isMethod {
				f = s.X
			}
		}
		if !isMethod {
			return
		}
		fields, ids := slices.Clone(base[dotted(f)]), []string(nil)
		if call.Fun.(*ast.SelectorExpr).Sel.Name == "Started" {
			fields, ids = slices.Clone(ofDaemon["Started"]), []string{dotted(call.Args[0])}
		}
		for i := range call.Args {
			if id := eventOf(call.Args[i]); id != "" {
				ids = append(ids, id)
				continue
			}
			if key, ok := literal(call.Args[i]); ok {
				if key == "duration" { // the journal's name says the unit
					key = "duration_ms"
				}
				fields = append(fields, strings.ToUpper(key))
			}
		}
		for _, id := range ids {
			record(id, fields)
		}
	}, dirs...)
	return always
}

// eventOf returns X of EventID(X), including within append(args, EventID(X)).
func eventOf(e ast.Expr) string {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return ""
	}
	switch name := dotted(call.Fun); {
	case name == "append":
		return eventOf(call.Args[len(call.Args)-1])
	case name == "EventID" || strings.HasSuffix(name, ".EventID"):
		x := dotted(call.Args[0])
		return x[strings.LastIndexByte(x, '.')+1:]
	}
	return ""
}

// events maps the names of events to their variables.
func events(t *testing.T, dir string) map[string]string {
	idents := map[string]string{}
	manual.Inspect(t, root, func(n ast.Node) {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return
		}
		c, ok := v.Values[0].(*ast.CompositeLit)
		if !ok || !strings.HasSuffix(dotted(c.Type), "Event") {
			return
		}
		for _, e := range c.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok && dotted(kv.Key) == "Name" {
				name, _ := literal(kv.Value)
				idents[name] = v.Names[0].Name
			}
		}
	}, dir)
	if len(idents) == 0 {
		t.Fatalf("no events were found in %s", dir)
	}
	return idents
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return dotted(e.X) + "." + e.Sel.Name
	}
	return ""
}
