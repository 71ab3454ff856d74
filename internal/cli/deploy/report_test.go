package deploy

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

func TestCommonText(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"unmount of /mnt/nnf/a-0 stuck for 16m: umount (pid 3211) waits in the kernel (xfs_log_force)", "unmount of … stuck: umount waits in the kernel (xfs_log_force)"},
		{"mount of /mnt/nnf/0123456789…/x failing for 3h: unable to mount: exit code 32: wrong fs type, bad superblock on /dev/mapper/vg-lv",
			"mount of … failing: unable to mount: exit code 32: wrong fs type, bad superblock on …"},
		{"unmount of /mnt/x busy for 2d: in use by pid 12 (bash, uid 1000) and 3 more", "unmount of … busy: in use by pid … (bash, uid …) and 3 more"},
		{"mount of /mnt/x orphaned for 5m: ClientMount job-0-computes no longer exists", "mount of … orphaned: ClientMount … no longer exists"},
		{"umount /mnt/nnf/job7-0 (pid 3211) has been running for 16m3s and waits in the kernel in xfs_log_force", "umount … has been running and waits in the kernel in xfs_log_force"},
		{"the token expires in 5h12m0s", "the token expires"},
		{"no answer within 5s", "no answer within 5s"},
		{"clientmountd not running for 12s", "clientmountd not running"},
		{"volume group 6f1c2b9e-0d3a-4a55-9f10-000000000001 of compute-01: 2 of 4 devices", "volume group … of …: 2 of 4 devices"},
		{"API server not reached for 20m: dial tcp 10.0.0.1:6443: connect: connection refused", "API server not reached: dial tcp 10.0.0.1:6443: connect: connection refused"},
		{"", ""},
	} {
		if got := commonText(tt.text, "compute-01", "job", "job-0-computes", "", "-"); got != tt.want {
			t.Errorf("%q: %q", tt.text, got)
		}
	}
}

// The answer of a hostile node is bounded, and safe to show.
func TestUntrustedAnswers(t *testing.T) {
	problem := `{"cause":"stuck","action":"drain","path":"\u001b[2J","text":"\u202e` + strings.Repeat("x", 5000) + `"}`
	h, err := healthOf(&target.Answer{Output: []byte(`{"version":1,"verdict":"problem","action":"drain","problems":[` + problem + strings.Repeat(","+problem, 200) + `]}`)})
	if err != nil || len(h.Problems) != maxProblems || len(h.Problems[0].Text) > 600 || strings.ContainsAny(h.Problems[0].Text+h.Problems[0].Path, "\x1b\u202e") {
		t.Errorf("%v %+v", err, h)
	}
	for _, bad := range []string{
		"", "x", `{"version":2}`, `{"version":1}`, `{"version":1,"verdict":"problem","action":"drain"}`, `{"version":1,"verdict":"problem","action":"dance","problems":[{}]}`, `{"version":1,"verdict":"unknown"}`,
	} {
		if h, err := healthOf(&target.Answer{Output: []byte(bad)}); err == nil {
			t.Errorf("%s: %+v", bad, h)
		}
	}
	check := `{"name":"\u001b[2J","state":"fail","text":"` + strings.Repeat("x", 5000) + `"}`
	d, err := checksOf(&target.Answer{Output: []byte(`{"version":1,"checks":[` + check + strings.Repeat(","+check, 200) + `]}`)})
	if err != nil || len(d.checks) != maxProblems || len(d.checks[0].Text) > 1100 || strings.Contains(d.checks[0].Name, "\x1b") {
		t.Errorf("%v %+v", err, d)
	}
	for _, bad := range []string{"", "x", `{"version":2}`} {
		if d, err := checksOf(&target.Answer{Output: []byte(bad)}); err == nil {
			t.Errorf("%s: %+v", bad, d)
		}
	}
}
