package deploy

import (
	"bytes"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

func TestStatusTable(t *testing.T) {
	now := time.Now()
	results := []fleet.Result{{Node: "a", State: fleet.OK}, {Node: "b", State: fleet.Failed, Cause: "not reachable: x", Hint: "check that the node is up"}}
	states := map[string][]target.DaemonState{"a": {
		{Name: "clientmountd", Version: "v1.2.3", Unit: "active", API: "answers", Mounts: &target.Mounts{Count: 2}, Token: target.TokenPermanent},
		{Name: "nnf-dm", Unit: "inactive", Token: target.TokenExpires, Expires: now.Add(90*time.Minute + 30*time.Second)},
		{Name: "w", Token: target.TokenExpires, Expires: now.Add(50 * time.Second)},
		{Name: "x", Token: target.TokenExpires, Expires: now.Add(100 * time.Hour)},
		{Name: "y", Token: target.TokenExpires, Expires: time.Unix(0, 0).UTC()},
		{Name: "z", Mounts: &target.Mounts{Unknown: "too old"}, Token: target.TokenMissing},
		{Name: "zz", Mounts: &target.Mounts{Count: 1, Unreadable: 1}, Token: target.TokenMissing},
	}}
	var b bytes.Buffer
	if err := statusTable(&b, results, states); err != nil {
		t.Fatal(err)
	}
	const want = `NODE  DAEMON        VERSION  UNIT      API      MOUNTS           TOKEN
a     clientmountd  v1.2.3   active    answers  2                does not expire
a     nnf-dm        -        inactive  -        -                expires in 1h30m
a     w             -        -         -        -                expires in less than 1m
a     x             -        -         -        -                expires in 4 days
a     y             -        -         -        -                expired 1970-01-01 00:00:00 UTC
a     z             -        -         -        unknown          missing
a     zz            -        -         -        1, 1 unreadable  missing
b     -             -        failed    -        -                not reachable: x (check that the node is up)
`
	if b.String() != want {
		t.Errorf("have:\n%s\nwant:\n%s", b.String(), want)
	}
}
