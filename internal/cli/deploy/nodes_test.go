package deploy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
		err  bool
	}{
		{"", nil, false},
		{"  ", nil, false},
		{"--kubernetes-qps 50  --kubernetes-burst 100", []string{"--kubernetes-qps", "50", "--kubernetes-burst", "100"}, false},
		{`--x="a b" 'c d'e`, []string{"--x=a b", "c de"}, false},
		{`"" ''`, []string{"", ""}, false},
		{`"it's" 'say "hi"'`, []string{"it's", `say "hi"`}, false},
		{`$HOME $(id) \n`, []string{"$HOME", "$(id)", `\n`}, false},
		{`"open`, nil, true},
		{"a'", nil, true},
	} {
		if got, err := words(tt.text); !slices.Equal(got, tt.want) || (err != nil) != tt.err {
			t.Errorf("%q: %q %v", tt.text, got, err)
		}
	}
}

func TestChosen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemons.yaml")
	if err := os.WriteFile(path, []byte("- {name: nnf-fence, serviceAccount: {name: f, namespace: n}}\n- {name: nnf-data-movement, bin: nnf-dm}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file string
		only []string
		want string
	}{
		{"", nil, "clientmountd nnf-dm"},
		{"", []string{"nnf-dm"}, "nnf-dm"},
		{path, nil, "nnf-fence nnf-data-movement"},
		{path, []string{"nnf-dm"}, "nnf-data-movement"},
		{path, []string{"nnf-fence"}, "nnf-fence"},
		{path, []string{"nnf-fence", "nnf-data-movement"}, "nnf-fence nnf-data-movement"},
		{path, []string{"clientmountd"}, "!"},
		{path, []string{""}, "!"},
	} {
		n := nodesSettings{daemons: tt.file, only: tt.only}
		list, _, err := n.chosen()
		var names []string
		for _, d := range list {
			names = append(names, d.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "!"
		}
		if got != tt.want {
			t.Errorf("%q: %q %v", tt.only, got, err)
		}
	}
}

// Packages that the shell has spread over the command line are not nodes.
func TestArgumentsOfInstall(t *testing.T) {
	good := func() installSettings {
		return installSettings{ready: time.Minute, limit: time.Minute, nodes: nodesSettings{parallel: 1, ssh: remote.SSH{Connect: time.Second}}}
	}
	c := good()
	c.rpms = []string{"a.rpm"}
	names, err := c.check([]string{"b.rpm", "compute-01"})
	if err != nil || !slices.Equal(names, []string{"compute-01"}) || !slices.Equal(c.rpms, []string{"a.rpm", "b.rpm"}) {
		t.Errorf("%q %q %v", names, c.rpms, err)
	}
	c = good()
	if names, err = c.check([]string{"b.rpm"}); err != nil || !slices.Equal(names, []string{"b.rpm"}) {
		t.Errorf("%q %v", names, err)
	}
}

// What an error of a node becomes in the table.
func TestFailed(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want fleet.Result
	}{
		{errors.New("x"), fleet.Result{State: fleet.Failed, Cause: "x"}},
		{&target.Problem{Text: "t", Hint: "h"}, fleet.Result{State: fleet.Failed, Cause: "t", Hint: "h"}},
		{&remote.Error{Kind: remote.Unreachable, Text: "t", Hint: "h"}, fleet.Result{State: fleet.Failed, Cause: "not reachable: t", Hint: "h"}},
		{&remote.Error{Kind: remote.Ended, Text: "t"}, fleet.Result{State: fleet.Interrupted, Cause: "nothing was changed"}},
	} {
		if got := failed(tt.err); got.State != tt.want.State || got.Cause != tt.want.Cause || got.Hint != tt.want.Hint {
			t.Errorf("%v: %+v", tt.err, got)
		}
	}
}

// A node that takes too long has failed; one that Ctrl-C ended has not.
func TestLimited(t *testing.T) {
	slow := func(_, stop context.Context, _ string, _ func(string)) fleet.Result {
		<-stop.Done()
		return failed(&remote.Error{Kind: remote.Ended})
	}
	r := limited(time.Millisecond, slow)(t.Context(), t.Context(), "n", func(string) {})
	if r.State != fleet.Failed || r.Cause != "it has not ended within 1ms (--node-timeout)" || r.Hint == "" {
		t.Errorf("%+v", r)
	}
	stop, halt := context.WithCancel(t.Context())
	halt()
	if r := limited(time.Hour, slow)(t.Context(), stop, "n", func(string) {}); r.State != fleet.Interrupted {
		t.Errorf("%+v", r)
	}
}

func TestAddressOfComputes(t *testing.T) {
	site := &inventory.Site{Host: "10.0.0.5", Port: "6443"}
	for _, tt := range []struct {
		site *inventory.Site
		a    address
		want string
	}{
		{site, address{}, "10.0.0.5:6443"},
		{site, address{host: "fd00::1"}, "[fd00::1]:6443"},
		{nil, address{host: "fd00::1", port: "1"}, "[fd00::1]:1"},
	} {
		j := &job{v: &call{Call: &cli.Call{Program: Program.Name, Process: cli.Process{}}}, n: &nodesSettings{}, site: tt.site}
		if got, err := j.address(tt.a); err != nil || got.String() != tt.want {
			t.Errorf("%+v: %v %v", tt.a, got, err)
		}
	}
}

// Nodes that differ in the same way are told of once, and notes as well.
func TestTellingManyNodes(t *testing.T) {
	results := []fleet.Result{
		{Node: "a", State: fleet.Differs, Changes: []string{"write /x", "restart y"}, Notes: []string{"n"}},
		{Node: "b", State: fleet.Unchanged, Notes: []string{"n", "m\x1b[31m"}},
		{Node: "c", State: fleet.Differs, Changes: []string{"write /x", "restart y"}},
		{Node: "d", State: fleet.Failed, Cause: "not\x1breachable", Hint: "h"},
	}
	var out, said bytes.Buffer
	if err := differences(&out, results); err != nil {
		t.Fatal(err)
	}
	const want = "a,c:\n  write /x\n  restart y\nb: as wanted already\nd: failed: not\\x1breachable (h)\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	v := &call{Call: &cli.Call{Program: Program.Name, Process: cli.Process{Stderr: &said}}}
	v.notes(results)
	if said.String() != "nnf-deploy: note: a,b: n\nnnf-deploy: note: b: m\\x1b[31m\n" {
		t.Errorf("%q", said.String())
	}
}

func TestJournalsOfManyNodes(t *testing.T) {
	var results []fleet.Result
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		results = append(results, fleet.Result{Node: n, State: fleet.Failed, Journal: []string{"x\x1b", "y"}})
	}
	results[1].Journal = nil
	var said bytes.Buffer
	v := &call{Call: &cli.Call{Program: Program.Name, Process: cli.Process{Stderr: &said}}}
	v.journals(results)
	const want = "nnf-deploy: a: journal: x\\x1b\nnnf-deploy: a: journal: y\nnnf-deploy: c: journal: x\\x1b\nnnf-deploy: c: journal: y\n" +
		"nnf-deploy: d: journal: x\\x1b\nnnf-deploy: d: journal: y\nnnf-deploy: the journals of 2 more nodes are in the answer with -o json\n"
	if said.String() != want {
		t.Errorf("%q", said.String())
	}
}

func TestStatusTable(t *testing.T) {
	now := time.Now()
	results := []fleet.Result{{Node: "a", State: fleet.OK}, {Node: "b", State: fleet.Failed, Cause: "not reachable: x", Hint: "is the node up?"}}
	states := map[string][]target.DaemonState{"a": {
		{Name: "clientmountd", Version: "v1.2.3", Unit: "active", API: "answers", Mounts: &target.Mounts{Count: 2}, Token: target.TokenForever},
		{Name: "nnf-dm", Unit: "inactive", Token: target.TokenEnds, Expires: now.Add(90*time.Minute + 30*time.Second)},
		{Name: "x", Token: target.TokenEnds, Expires: now.Add(100 * time.Hour)},
		{Name: "y", Token: target.TokenEnds, Expires: time.Unix(0, 0).UTC()},
		{Name: "z", Mounts: &target.Mounts{Unknown: "too old"}, Token: target.TokenMissing},
		{Name: "zz", Mounts: &target.Mounts{Count: 1, Unreadable: 1}, Token: target.TokenMissing},
	}}
	var b bytes.Buffer
	if err := statusTable(&b, results, states); err != nil {
		t.Fatal(err)
	}
	const want = `NODE  DAEMON        VERSION  UNIT      API      MOUNTS           TOKEN
a     clientmountd  v1.2.3   active    answers  2                does not end
a     nnf-dm        -        inactive  -        -                1h30m left
a     x             -        -         -        -                4 days left
a     y             -        -         -        -                ended 1970-01-01 00:00:00 UTC
a     z             -        -         -        unknown          missing
a     zz            -        -         -        1, 1 unreadable  missing
b     -             -        failed    -        -                not reachable: x (is the node up?)
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}
