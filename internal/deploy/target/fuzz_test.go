package target

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
)

// FuzzReport: a node may say what it wants; what comes of it is an error, or a plan
// whose manifest the scripts can read.
func FuzzReport(f *testing.F) {
	f.Add("nnf-deploy\tprobe\t1\narch\tx86_64\nsystemd\t252\nfile\tabsent\t-\t-\t/etc/clientmountd/service.token\nend\n")
	f.Add("nnf-deploy\tprobe\t1\nsystemd\tx\narch\tx86_64\ncontent\t/etc/systemd/system/clientmountd.service.d/a b.conf\tW1NlcnZpY2VdCg==\nunit\tclientmountd.service\tQWN0aXZlU3RhdGU9YWN0aXZlCg==\npending\tnnf-dm\nend\n")
	f.Add("nnf-deploy\tprobe\t1\nsystemd\t1\narch\taarch64\npackage\tnnf-dm\tx y\tz\nowner\t/usr/bin/nnf-dm\tz\nspace\t/etc\t-5\nstatus\tclientmountd\teyJ2ZXJzaW9uIjoxLCJtb3VudHMiOnsiY291bnQiOi0xfX0=\nend\n")
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
		if m := r.mounts("clientmountd"); m != nil && (m.Count < 0 || m.Unreadable < 0) {
			t.Errorf("%+v", m)
		}
		if p, err := Remove(w, r, false); err == nil && r.Files["/usr/bin/clientmountd"].State != "absent" && r.Statuses["clientmountd"].Status == nil {
			t.Errorf("without knowing of its mounts clientmountd is removed: %s", changes(p))
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

// FuzzOutcome: whatever a node says while it switches, in pieces of any size: only
// an answer that names the run and "ok" is a success.
func FuzzOutcome(f *testing.F) {
	const run = "0123456789abcdef"
	f.Add("staged\nswitching\nresult\t"+run+"\tok\t\t\nnote\tx\nheard\n", 3)
	f.Add("result\t"+run+"\told\tstart: x\thint\njournal\ta\tb\nsaid\tc\n", 1)
	f.Add("result\tffff\tok\t\t\nerror\tx\ty\nresult\t"+run+"\tok", 7)
	f.Add("heard\nheard\nstaged\tx\nresult\n\nerror\n", 2)
	f.Fuzz(func(t *testing.T, answer string, size int) {
		hear := func(size int) (*reader, string) {
			words := ""
			r := &reader{signal: func(word string) { words += word + " " }}
			for rest := []byte(answer); len(rest) > 0; {
				n := min(max(size, 1), len(rest))
				if _, err := r.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			return r, words
		}
		whole, words := hear(len(answer))
		pieces, same := hear(size)
		if !reflect.DeepEqual(whole.outcome, pieces.outcome) || words != same {
			t.Fatalf("%+v %q, in pieces of %d: %+v %q", whole.outcome, words, size, pieces.outcome, same)
		}
		if _, err := whole.outcome.judge(run); err == nil && !strings.Contains(answer, "result\t"+run+"\tok\t") {
			t.Errorf("%q is a success", answer)
		}
	})
}
