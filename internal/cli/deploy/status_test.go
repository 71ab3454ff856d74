package deploy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

func TestStatusTable(t *testing.T) {
	now := time.Now()
	results := []fleet.Result{{Node: "a", State: fleet.OK}, {Node: "b", State: fleet.Failed, Cause: "not reachable: x", Hint: "check that the node is up"}}
	states := map[string][]target.DaemonState{"a": {
		{Name: "clientmountd", Version: "v1.2.3", Unit: "active", API: "answers", Mounts: &target.Mounts{Count: 2}, Kind: target.KindShared, Token: target.TokenPermanent},
		{Name: "nnf-dm", Unit: "inactive", Token: target.TokenExpires, Expires: now.Add(90*time.Minute + 30*time.Second)},
		{Name: "w", Token: target.TokenExpires, Expires: now.Add(50 * time.Second)},
		{Name: "x", Kind: target.KindPerNode, Token: target.TokenExpires, Expires: now.Add(100 * time.Hour)},
		{Name: "y", Token: target.TokenExpires, Expires: time.Unix(0, 0).UTC()},
		{Name: "z", Mounts: &target.Mounts{Unknown: "too old"}, Token: target.TokenMissing},
		{Name: "zz", Mounts: &target.Mounts{Count: 1, Unreadable: 1}, Token: target.TokenMissing},
	}}
	var b bytes.Buffer
	if err := statusTable(&b, results, states); err != nil {
		t.Fatal(err)
	}
	const want = `NODE  DAEMON        VERSION  UNIT      API      MOUNTS           IDENTITY  TOKEN
a     clientmountd  v1.2.3   active    answers  2                shared    does not expire
a     nnf-dm        -        inactive  -        -                -         expires in 1h30m
a     w             -        -         -        -                -         expires in less than 1m
a     x             -        -         -        -                per-node  expires in 4 days
a     y             -        -         -        -                -         expired 1970-01-01 00:00:00 UTC
a     z             -        -         -        unknown          -         missing
a     zz            -        -         -        1, 1 unreadable  -         missing
b     -             -        failed    -        -                -         not reachable: x (check that the node is up)
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}

// With many nodes, there is one row for all nodes with the same cells. The number of rows is limited.
func TestStatusTableOfManyNodes(t *testing.T) {
	var results []fleet.Result
	states := map[string][]target.DaemonState{}
	for i := range manyNodes + 20 {
		name := fmt.Sprintf("n%03d", i)
		switch {
		case i%40 == 7:
			results = append(results, fleet.Result{Node: name, State: fleet.Failed, Cause: "not reachable: ssh: connect to host " + name, Class: "not reachable"})
		default:
			results = append(results, fleet.Result{Node: name, State: fleet.OK})
			states[name] = []target.DaemonState{{Name: "clientmountd", Version: "v2", Unit: "active", Mounts: &target.Mounts{Count: i / 100}, Kind: target.KindShared, Token: target.TokenPermanent}}
		}
	}
	var b bytes.Buffer
	if err := statusTable(&b, results, states); err != nil {
		t.Fatal(err)
	}
	const want = `COUNT  DAEMON        VERSION  UNIT    API  MOUNTS  IDENTITY  TOKEN            NODES
97     clientmountd  v2       active  -    0       shared    does not expire  n[000-006,008-046,048-086,088-099]
3      -             -        failed  -    -       -         not reachable    n[007,047,087]
20     clientmountd  v2       active  -    1       shared    does not expire  n[100-119]
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
	for _, r := range results {
		states[r.Node] = []target.DaemonState{{Name: "clientmountd", Version: r.Node}}
	}
	b.Reset()
	if err := statusTable(&b, results, states); err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(b.Bytes(), []byte("\n")); lines != 1+maxRows+1 || !bytes.HasSuffix(b.Bytes(), []byte("  20 more rows: -o json shows all nodes\n")) {
		t.Errorf("%d lines\n%s", lines, &b)
	}
}

// With many nodes, tokens that expire within the same hour have the same text.
func TestTokenOfManyNodes(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]string{
		100 * time.Hour: "expires in 4 days", 30*time.Hour + 59*time.Minute: "expires in 30h", time.Minute: "expires in less than 1h", -time.Hour: "expired",
	} {
		if got := token(target.DaemonState{Token: target.TokenExpires, Expires: now.Add(left)}, now, true); got != want {
			t.Errorf("%v: %q, want %q", left, got, want)
		}
	}
}

// A token that the daemon renews needs attention only when the renewal is overdue.
func TestExpiryNote(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		kind       string
		life, left time.Duration
		want       string
	}{
		{target.KindPerNode, 168 * time.Hour, 26 * time.Hour, ""},
		{target.KindPerNode, 168 * time.Hour, 23 * time.Hour, "the token of d expires within a day: run nnf-deploy install --no-programs --identity per-node"},
		{target.KindPerNode, time.Hour, 10 * time.Minute, ""},
		{target.KindPerNode, time.Hour, 8 * time.Minute, "the token of d expires within a day: run nnf-deploy install --no-programs --identity per-node"},
		{target.KindPerNode, time.Hour, -time.Minute, "the token of d has expired: run nnf-deploy install --no-programs --identity per-node"},
		{target.KindShared, 24 * time.Hour, 25 * time.Hour, ""},
		{target.KindShared, 24 * time.Hour, 23 * time.Hour, ""},
		{target.KindShared, 168 * time.Hour, 23 * time.Hour, "the token of d expires within a day: run nnf-deploy credentials --bound, then nnf-deploy install --no-programs --credentials DIR"},
		{target.KindOther, 24 * time.Hour, -time.Hour, "the token of d has expired: run nnf-deploy credentials --bound, then nnf-deploy install --no-programs --credentials DIR"},
	} {
		d := target.DaemonState{Name: "d", Kind: tt.kind, Token: target.TokenExpires, Expires: now.Add(tt.left), Issued: now.Add(tt.left - tt.life)}
		if got := expiryNote(d, now); got != tt.want {
			t.Errorf("%s, %v of %v left: %q, want %q", tt.kind, tt.left, tt.life, got, tt.want)
		}
	}
	if got := expiryNote(target.DaemonState{Token: target.TokenPermanent}, now); got != "" {
		t.Error(got)
	}
}

// Only a node with an account of its own needs the timer, and an administrator may mask it.
func TestTimerNote(t *testing.T) {
	for _, tt := range []struct {
		kind, timer string
		want        bool
	}{
		{target.KindPerNode, target.TimerOn, false},
		{target.KindPerNode, target.TimerOff, true},
		{target.KindPerNode, target.TimerAbsent, true},
		{target.KindPerNode, target.TimerMasked, false},
		{target.KindPerNode, "", false},
		{target.KindShared, target.TimerOff, false},
	} {
		note := timerNote(target.DaemonState{Name: "nnf-dm", Kind: tt.kind, Timer: tt.timer})
		if (note != "") != tt.want || tt.want && !strings.HasSuffix(note, " is "+tt.timer+": run nnf-deploy install --no-programs --identity per-node") {
			t.Errorf("%+v: %q", tt, note)
		}
	}
	// Without a current package, the command would change nothing.
	packaged := timerNote(target.DaemonState{Name: "nnf-dm", Kind: target.KindPerNode, Timer: target.TimerAbsent, Package: "nnf-dm-1"})
	if !strings.HasSuffix(packaged, "install the current package with --rpm and --identity per-node") {
		t.Errorf("%q", packaged)
	}
}
