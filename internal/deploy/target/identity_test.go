package target

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// jwt returns a token with the claims of one that the API server issues.
func jwt(a product.Account, uid string, issued, expires time.Time) string {
	claims := map[string]any{"sub": a.User(), "kubernetes.io": map[string]any{"serviceaccount": map[string]any{"name": a.Name, "uid": uid}}}
	if !issued.IsZero() {
		claims["iat"], claims["exp"] = issued.Unix(), expires.Unix()
	}
	data, _ := json.Marshal(claims)
	return "e30." + base64.RawURLEncoding.EncodeToString(data) + ".c2ln"
}

const (
	tokenPath  = "/etc/clientmountd/service.token"
	storedPath = "/var/lib/clientmountd/service.token"
)

// A node keeps a token only if it belongs to the right account and is valid for long enough.
func TestRotate(t *testing.T) {
	now, hour := time.Now(), time.Hour
	p, _ := product.Of("clientmountd")
	own := p.NodeAccount("compute-01")
	claims := func(a product.Account, uid string, age, life time.Duration) kube.Claims {
		c, err := kube.ClaimsOf(jwt(a, uid, now.Add(-age), now.Add(life-age)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	good := claims(own, "u", hour, 10*hour)
	for _, tt := range []struct {
		name   string
		change func(r *Report, w *Want)
		want   string
	}{
		{"good", func(*Report, *Want) {}, ""},
		{"forced", func(_ *Report, w *Want) { w.Force = true }, whyForced},
		{"none", func(r *Report, _ *Want) { delete(r.Claims, tokenPath) }, whyMissing},
		{"shared", func(r *Report, _ *Want) { r.Claims[tokenPath] = claims(p.Account, "u", hour, 10*hour) }, whyAccount},
		{"of another node", func(r *Report, _ *Want) {
			r.Claims[tokenPath] = claims(p.NodeAccount("compute-02"), "u", hour, 10*hour)
		}, whyAccount},
		{"of an earlier account", func(r *Report, _ *Want) { r.Claims[tokenPath] = claims(own, "v", hour, 10*hour) }, whyRecreate},
		{"readable", func(r *Report, _ *Want) { r.Files[tokenPath] = FileState{"sum", "644", "root:root"} }, whyReadable},
		{"old", func(r *Report, _ *Want) { r.Claims[tokenPath] = claims(own, "u", 6*hour, 10*hour) }, whyHalf},
		{"expired", func(r *Report, _ *Want) { r.Claims[tokenPath] = claims(own, "u", 11*hour, 10*hour) }, whyHalf},
		{"not expiring", func(r *Report, _ *Want) { r.Claims[tokenPath] = kube.Claims{Subject: own.User(), UID: "u"} }, whyForever},
		{"longer than wanted", func(r *Report, _ *Want) { r.Claims[tokenPath] = claims(own, "u", hour, 11*hour) }, whyLonger},
		{"expired, and renewed", func(r *Report, _ *Want) {
			r.Claims[tokenPath], r.Claims[storedPath] = claims(own, "u", 11*hour, 10*hour), good
			r.Files[storedPath] = FileState{storedFile, "-", "-"}
		}, ""},
		{"expired, and renewed for an earlier account", func(r *Report, _ *Want) {
			r.Claims[tokenPath], r.Claims[storedPath] = claims(own, "u", 11*hour, 10*hour), claims(own, "v", hour, 10*hour)
			r.Files[storedPath] = FileState{storedFile, "-", "-"}
		}, whyHalf},
		{"expired, and renewed in another directory", func(r *Report, _ *Want) {
			const path = "/persistent/" + product.TokenFile
			r.Claims[tokenPath], r.Claims[path] = claims(own, "u", 11*hour, 10*hour), good
			r.Files[path] = FileState{storedFile, "-", "-"}
			r.Statuses["clientmountd"] = StatusAnswer{Status: &systemd.Status{Renewal: &systemd.RenewalStatus{Enabled: true, Directory: "/persistent"}}}
		}, ""},
		{"shared, and an earlier renewal", func(r *Report, _ *Want) {
			r.Claims[tokenPath], r.Claims[storedPath] = claims(p.Account, "u", hour, 10*hour), good
			r.Files[storedPath] = FileState{storedFile, "-", "-"}
		}, whyAccount},
	} {
		r, w := newReport(), &Want{Node: "compute-01"}
		r.Files[tokenPath] = FileState{"sum", "600", "root:root"}
		r.Claims[tokenPath] = good
		tt.change(r, w)
		d := &Daemon{Name: "clientmountd", Bin: "clientmountd"}
		if got := r.Rotate(d, w, "u", 10*hour, now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Kinds of tokens, as status reports them. What a node claims is not trusted.
func TestKinds(t *testing.T) {
	p, _ := product.Of("clientmountd")
	for user, want := range map[string]string{
		p.NodeAccount("compute-01").User(): KindPerNode, p.NodeAccount("compute-02").User(): KindOther,
		p.Account.User(): KindShared, p.OlderAccounts[0].User(): KindShared, "system:serviceaccount:site:own": KindShared,
		"system:serviceaccount:x:y": KindOther, "system:admin": "", "": "", strings.Repeat("x", 1<<20): "",
	} {
		r := newReport()
		r.Claims[tokenPath] = kube.Claims{Subject: user}
		w := &Want{Node: "compute-01", Daemons: []Daemon{{Name: "clientmountd", Bin: "clientmountd", Account: product.Account{Name: "own", Namespace: "site"}}}}
		if got := r.Daemons(w, time.Now())[0].Kind; got != want {
			t.Errorf("%.80q: %q, want %q", user, got, want)
		}
	}
}

// From shared credentials to the account of the node and back. The stored token of another account,
// or an older one, is removed at the end; a newer one stays.
func TestIdentities(t *testing.T) {
	s := newTestNode(t)
	p, _ := product.Of("clientmountd")
	now := time.Now()
	own := p.NodeAccount(s.Name)
	w := wanted(s.bare("1", "exit 0"))
	w.Daemons = w.Daemons[:1]
	d := &w.Daemons[0]
	shared := jwt(p.Account, "s", time.Time{}, time.Time{})
	d.Token = []byte(shared)
	s.install(w)

	d.Token, d.Why = []byte(jwt(own, "u", now, now.Add(time.Hour))), whyAccount
	if got, want := changes(s.plan(w)), "replace "+tokenPath+" ("+whyAccount+")\nrestart clientmountd.service\n"; got != want {
		t.Errorf("to an account of the node:\n%s", got)
	}
	s.install(w)
	r, err := Probe(t.Context(), s.shell, w)
	if err != nil {
		t.Fatal(err)
	}
	// The real owner of a test file is that of the test.
	r.Files[tokenPath] = FileState{r.Files[tokenPath].State, "600", "root:root"}
	if why := r.Rotate(d, w, "u", time.Hour, now); why != "" || r.Kind(d, w.Node) != KindPerNode {
		t.Errorf("%q %q", why, r.Kind(d, w.Node))
	}

	d.Token, d.Keep, d.Why = nil, true, ""
	if got := changes(s.plan(w)); got != "" {
		t.Errorf("a kept token:\n%s", got)
	}
	// The daemon has renewed it.
	renewed := jwt(own, "u", now.Add(time.Second), now.Add(2*time.Hour))
	s.Put(storedPath, renewed+"\n", 0o600)
	if got := changes(s.plan(w)); got != "" {
		t.Errorf("a kept token with a newer stored one:\n%s", got)
	}
	r, err = Probe(t.Context(), s.shell, w)
	if err != nil {
		t.Fatal(err)
	}
	if end := r.Daemons(w, now)[0].Expires; end.Unix() != now.Add(2*time.Hour).Unix() {
		t.Errorf("the token expires at %v", end)
	}
	s.Put(storedPath, jwt(own, "u", now.Add(-time.Second), now.Add(time.Hour)), 0o600)
	if got, want := changes(s.plan(w)), "remove "+storedPath+"\n"; got != want {
		t.Errorf("a kept token with an older stored one:\n%s", got)
	}

	// Back, with a release that does not start: everything stays, including the stored token.
	s.Put(storedPath, renewed, 0o600)
	before := s.state()
	bad := wanted(s.bare("2", "exit 1"))
	bad.Daemons, bad.Ready = bad.Daemons[:1], time.Second
	bad.Daemons[0].Token = []byte(shared)
	if o, err := s.apply(bad); err == nil || o.State != "old" || s.state() != before || s.Get(storedPath) != renewed {
		t.Errorf("%+v %v\n%s", o, err, s.state())
	}
	d.Token, d.Keep = []byte(shared), false
	s.install(w)
	if s.Get(tokenPath) != shared || s.Get(storedPath) != "" {
		t.Errorf("moved back: %q %q", s.Get(tokenPath), s.Get(storedPath))
	}
	if got := changes(s.plan(w)); got != "" {
		t.Errorf("moved back:\n%s", got)
	}

	// A link in a directory that belongs to the daemon is removed, and not followed.
	s.Put("etc/secret", "x", 0o600)
	link(t, s.Root+"/etc/secret", s.Root+storedPath)
	s.install(w)
	if s.Get("etc/secret") != "x" || s.Get(storedPath) != "" {
		t.Error("the link was followed, or stays")
	}

	// No token is left after uninstall.
	s.Put(storedPath, renewed, 0o600)
	r, err = Probe(t.Context(), s.shell, w)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Remove(w, r, true)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(changes(plan), "remove "+storedPath+"\n") {
		t.Errorf("uninstall:\n%s", changes(plan))
	}
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, plan, func(string) {}); err != nil {
		t.Fatal(err)
	}
	for path := range s.Files("etc", "var") {
		if strings.Contains(path, "token") || strings.HasPrefix(path, "/var/lib/clientmountd") {
			t.Errorf("left behind: %s", path)
		}
	}
}

// Files of any kind and size in the state directory do not stop the inspection.
func TestHostileStoredToken(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.bare("1", "exit 0"))
	for name, text := range map[string]string{"large": strings.Repeat("x", 8<<20), "lines": "a.b.c\nd.e.f\n", "zero": "a\x00.b.c", "tab": "a.b\tc.d"} {
		s.Put(storedPath, text, 0o600)
		r, err := Probe(t.Context(), s.shell, w)
		if err != nil || r.Files[storedPath].State != storedFile {
			t.Errorf("%s: %v %+v", name, err, r)
		}
	}
}

// The user of the daemon cannot prevent that uninstall removes the daemon and its credentials.
func TestHostileStateDirectory(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.bare("1", "exit 0"))
	s.install(w)
	s.Put(storedPath+"/x", "x", 0o600)
	p, err := s.remove(w, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Notes) != 1 || p.Notes[0] != storedPath+" is a directory and is kept" {
		t.Errorf("%q", p.Notes)
	}
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err != nil {
		t.Error(err)
	}
	for path := range s.Files("etc") {
		if strings.Contains(path, "service.token") {
			t.Errorf("left behind: %s", path)
		}
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}
