package target

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

func TestInvalidAnswers(t *testing.T) {
	for _, tt := range []struct{ answer, want string }{
		{"", "it returned no answer"},
		{"Welcome to compute-01\n", "it returned no answer"},
		{"nnf-deploy\tprobe\t1\narch\tx86_64\n", "its answer is truncated"},
		{"error\tthe login is not root\tuse --sudo\n", "the login is not root"},
		{"nnf-deploy\tprobe\t1\n" + strings.Repeat("x", 2<<20), "cannot parse its answer: bufio.Scanner: token too long"},
		{"noise\nunit\tx\nnnf-deploy\tprobe\t1\nunit\nunit\tx\nfile\nspace\tx\ty\nmounts\tx\ncontent\tx\t!!\nclaims\tx\t!!\nunknown\nend\n", ""},
	} {
		r, err := parseReport(strings.NewReader(tt.answer))
		if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%.60q: %+v %v", tt.answer, r, err)
		}
	}
}

func TestDaemonState(t *testing.T) {
	now := time.Unix(1000, 0)
	path, _ := product.Credentials("clientmountd")
	for _, tt := range []struct {
		name   string
		report func(*Report)
		want   DaemonState
	}{
		{"healthy", func(r *Report) {
			r.Claims[path] = kube.Claims{}
			r.Units["clientmountd.service"] = Unit{Load: "loaded", Active: "active", File: "enabled"}
			r.Statuses["clientmountd"] = StatusAnswer{Status: &systemd.Status{API: systemd.APIAnswers}}
		}, DaemonState{Healthy: true, Unit: "active", Enabled: "enabled", API: "answers", Token: TokenPermanent}},
		{"expires later", func(r *Report) { r.Claims[path] = kube.Claims{Expires: now.Add(time.Hour)} }, DaemonState{Healthy: true, Unit: "active", Enabled: "enabled", Token: TokenExpires}},
		{"expired", func(r *Report) { r.Claims[path] = kube.Claims{Expires: now.Add(-time.Hour)} }, DaemonState{Unit: "active", Enabled: "enabled", Token: TokenExpires}},
		{"invalid expiry", func(r *Report) { r.BadExpiry[path] = true }, DaemonState{Unit: "active", Enabled: "enabled", Token: TokenInvalid}},
		{"no token", func(r *Report) { r.Files[path] = FileState{State: "absent"} }, DaemonState{Unit: "active", Enabled: "enabled", Token: TokenMissing}},
		{"not a service account token", func(*Report) {}, DaemonState{Healthy: true, Unit: "active", Enabled: "enabled", Token: TokenUnknown}},
		{"not installed", func(r *Report) { r.Units["clientmountd.service"] = Unit{Load: "not-found", Active: "inactive"} }, DaemonState{Token: TokenUnknown}},
		{"API server does not answer", func(r *Report) {
			r.Units["clientmountd.service"] = Unit{Load: "loaded", Active: "active", File: "enabled"}
			r.Statuses["clientmountd"] = StatusAnswer{Status: &systemd.Status{API: systemd.APISilent}}
		}, DaemonState{Unit: "active", Enabled: "enabled", API: "no answer", Token: TokenUnknown}},
		{"version from the status", func(r *Report) {
			r.Versions["clientmountd"] = "1"
			r.Statuses["clientmountd"] = StatusAnswer{Status: &systemd.Status{ProgramVersion: "2"}}
		}, DaemonState{Healthy: true, Version: "2", Unit: "active", Enabled: "enabled", Token: TokenUnknown}},
		{"too old for status -o json", func(r *Report) {
			r.Versions["clientmountd"] = "1"
			r.Statuses["clientmountd"] = StatusAnswer{Err: errors.New("it is not JSON")}
		}, DaemonState{Healthy: true, Version: "1", Unit: "active", Enabled: "enabled", Token: TokenUnknown}},
		{"failed", func(r *Report) {
			r.Units["clientmountd.service"] = Unit{Load: "loaded", Active: "failed", File: "disabled"}
		}, DaemonState{Unit: "failed", Enabled: "disabled", Token: TokenUnknown}},
	} {
		w := wanted(pack("1"))
		r := settled(w)
		tt.report(r)
		got := r.Daemons(w, now)[0]
		got.Name, got.Package, got.Status, got.Mounts, got.Expires = "", "", "", nil, time.Time{}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// Numbers from a node that are out of range are ignored.
func TestNumbersOutOfRange(t *testing.T) {
	claims := func(text string) []string {
		return []string{"claims", "/t", base64.RawURLEncoding.EncodeToString([]byte(text))}
	}
	for _, tt := range []struct {
		name    string
		line    []string
		expires int64 // -1: unknown
		bad     bool
	}{
		{"expires", claims(`{"exp":1700000000}`), 1700000000, false},
		{"does not expire", claims(`{"sub":"x"}`), time.Time{}.Unix(), false},
		{"in the year 36812", claims(`{"exp":1099511627775}`), -1, true},
		{"never", claims(`{"exp":1e300}`), -1, true},
		{"before 1970", claims(`{"exp":-1e15}`), -1, true},
		{"no claims", claims(`[]`), -1, false},
		{"no base64", []string{"claims", "/t", "!!"}, -1, false},
	} {
		r := newReport()
		r.parse(tt.line)
		c, known := r.Claims["/t"]
		got := c.Expires
		if known != (tt.expires != -1) || known && got.Unix() != tt.expires || r.BadExpiry["/t"] != tt.bad {
			t.Errorf("%s: %v %v %v", tt.name, got, known, r.BadExpiry)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for text, want := range map[string]int64{"0": 0, "1048576": 1 << 20, "-1": -1, "9223372036854775807": -1, "x": -1, "": -1} {
		r := newReport()
		r.parse([]string{"space", "/", text})
		if got, known := r.Space["/"]; known != (want >= 0) || known && got != want {
			t.Errorf("%q KiB: %d %v", text, got, known)
		}
	}
}
