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
