package host

import (
	"encoding/base64"
	"strings"
	"testing"
)

// FuzzReport: a node may say what it wants; what comes of it is an error, or a plan
// whose manifest the scripts can read.
func FuzzReport(f *testing.F) {
	f.Add("nnf-deploy\tprobe\t1\narch\tx86_64\nsystemd\t252\nfile\tabsent\t-\t-\t/etc/clientmountd/service.token\nend\n")
	f.Add("nnf-deploy\tprobe\t1\nsystemd\tx\narch\tx86_64\ncontent\t/etc/systemd/system/clientmountd.service.d/a b.conf\tW1NlcnZpY2VdCg==\nunit\tclientmountd.service\tActiveState=active\npending\tnnf-dm\nend\n")
	f.Add("nnf-deploy\tprobe\t1\nsystemd\t1\narch\taarch64\npackage\tnnf-dm\tx y\tz\nowner\t/usr/bin/nnf-dm\tz\nspace\t/etc\t-5\nmounts\t99999999999999999999\nend\n")
	f.Add("nnf-deploy\tprobe\t1\nsystemd\tx\narch\tx86_64\ncontent\t/etc/systemd/system/clientmountd.service.d/a b/override.conf\t" + base64.StdEncoding.EncodeToString([]byte(oldOverride)) + "\nend\n")
	f.Fuzz(func(t *testing.T, answer string) {
		r, err := parseReport(strings.NewReader(answer))
		if err != nil {
			return
		}
		w := wanted(pack("1"))
		plans := make([]*Plan, 0, 2)
		if p, err := Diff(w, r); err == nil {
			plans = append(plans, p)
		}
		if p, err := Remove(w, r, true); err == nil {
			plans = append(plans, p)
		}
		for _, p := range plans {
			for _, s := range p.steps {
				if strings.ContainsAny(s, "\n\t'\"$`\\;*?") {
					t.Errorf("%q is in the manifest", s)
				}
			}
		}
	})
}
