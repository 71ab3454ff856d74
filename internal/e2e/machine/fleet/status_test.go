package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// status is what nnf-deploy status says for machines.
type status struct {
	Nodes []struct {
		Node          string
		Well, Answers bool
		Cause, Hint   string
		Daemons       []struct {
			Name, Version, Unit, API, Token string
			Well                            bool
			Mounts                          *int
		}
	}
}

func TestStatus(t *testing.T) {
	f := New(t, 3)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	well, stopped, dead := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	expect(t, f.Ask("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	if r := f.Deploy("status"); r.Code != 0 || strings.Count(r.Stdout, older.Version) != 6 {
		t.Errorf("a system that is well: %+v", r)
	}
	stopped.Do("systemctl stop clientmountd")
	f.Set(dead, Faults{Dead: true})
	before := well.Files()
	r := f.Deploy("status", "-o", "json")
	var s status
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil || r.Code != 1 || len(s.Nodes) != 3 {
		t.Fatalf("%v: %+v", err, r)
	}
	for i, want := range []string{"true true", "false true", "false false"} {
		if got := fmt.Sprint(s.Nodes[i].Well, s.Nodes[i].Answers); got != want {
			t.Errorf("%+v, want %s", s.Nodes[i], want)
		}
	}
	if s.Nodes[2].Cause == "" || s.Nodes[2].Hint == "" {
		t.Errorf("of the node that does not answer: %+v", s.Nodes[2])
	}
	if now := well.Files(); now != before {
		t.Errorf("looking has changed something:\n%s", difference(before, now))
	}
	for _, d := range s.Nodes[0].Daemons {
		if !d.Well || d.Version != older.Version || d.Unit != "active" || d.Token == "" {
			t.Errorf("%+v", d)
		}
		if d.Name == "clientmountd" && (d.API != "answers" || d.Mounts == nil || *d.Mounts != 0) {
			t.Errorf("%+v", d)
		}
	}
	r = f.Deploy("status", "compute-01", "compute-02")
	if r.Code != 1 || !contains(r.Stdout, "inactive") || contains(r.Stdout, "compute-03") {
		t.Errorf("%+v", r)
	}
	t.Log("\n" + r.Stdout)
}
