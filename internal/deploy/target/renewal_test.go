package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

const (
	timer       = "nnf-dm.timer"
	timerUnit   = "/etc/systemd/system/nnf-dm.timer"
	recordPath  = "/etc/systemd/system/nnf-dm.timer.d/50-nnf-deploy.conf"
	dmDirectory = "/var/lib/nnf-dm"
)

// renewing is a node with nnf-dm, and the wanted state with a token of the shared account or of that of
// the node.
type renewing struct {
	*testNode
	shared, own string
}

func newRenewing(t *testing.T) *renewing {
	t.Helper()
	s := &renewing{testNode: newTestNode(t)}
	p, _ := product.Of("nnf-dm")
	now := time.Now()
	s.shared = jwt(p.Account, "s", time.Time{}, time.Time{})
	s.own = jwt(p.NodeAccount(s.Name), "u", now, now.Add(time.Hour))
	return s
}

func (s *renewing) want(p payload.Payload, token string) *Want {
	w := wanted(p)
	w.Daemons = w.Daemons[1:]
	w.Daemons[0].Token = []byte(token)
	return w
}

// uninstall returns the plan that it has applied.
func (s *renewing) uninstall(w *Want) *Plan {
	s.t.Helper()
	p, err := s.remove(w, false)
	if err != nil {
		s.t.Fatal(err)
	}
	if o, err := Apply(s.t.Context(), s.t.Context(), s.shell, s.Name, p, func(string) {}); err != nil {
		s.t.Fatalf("%v %+v\n%s", err, o, s.Get("var/lib/nnf-deploy/log"))
	}
	return p
}

// timer returns the states of the timer, and whether nnf-deploy has recorded that it enabled the timer.
func (s *renewing) timer() string {
	recorded := ""
	if s.Get(recordPath) != "" {
		recorded = " recorded"
	}
	return strings.TrimSpace(s.Get("run/fake/enabled."+timer)+s.Get("run/fake/active."+timer)) + recorded
}

func (s *renewing) expectTimer(when, want string) {
	s.t.Helper()
	if got := strings.ReplaceAll(s.timer(), "\n", " "); got != want {
		s.t.Errorf("%s: the timer is %q, want %q", when, got, want)
	}
}

func expectChanges(t *testing.T, when string, p *Plan, want string) {
	t.Helper()
	if got := changes(p); got != want {
		t.Errorf("%s:\n%swant:\n%s", when, got, want)
	}
}

// The timer runs on nodes with an account of their own, and only there.
func TestTimer(t *testing.T) {
	for _, kind := range []string{"packages", "programs"} {
		t.Run(kind, func(t *testing.T) {
			s := newRenewing(t)
			files, unit := s.packages("1", "exit 0", ""), ""
			if kind == "programs" {
				files, unit = s.bare("1", "exit 0"), "write "+timerUnit+"\n"
			}
			before := s.state()
			shared, own := s.want(files, s.shared), s.want(files, s.own)
			s.install(shared)
			s.expectTimer("shared", "")
			change := "replace /etc/nnf-dm/service.token\nrestart nnf-dm.service\n" + unit + "write " + recordPath + "\nenable " + timer + "\nstart " + timer + "\n"
			expectChanges(t, "per-node", s.plan(own), change)
			s.install(own)
			s.expectTimer("per-node", "enabled active recorded")
			expectChanges(t, "per-node again", s.plan(own), "")
			if kind == "programs" && s.Get(timerUnit) != header+product.Daemons[1].TimerText {
				t.Errorf("the unit is %s", s.Get(timerUnit))
			}

			// An administrator who has disabled it can mask it instead.
			s.Put("run/fake/enabled."+timer, "disabled\n", 0o600)
			s.Put("run/fake/active."+timer, "inactive\n", 0o600)
			expectChanges(t, "disabled", s.plan(own), "enable "+timer+"\nstart "+timer+"\n")
			s.install(own)
			s.expectTimer("enabled again", "enabled active recorded")

			stop := "stop " + timer + "\ndisable " + timer + "\n"
			if unit != "" {
				stop += "remove " + timerUnit + "\n"
			}
			stop += "remove " + recordPath + "\n"
			expectChanges(t, "back", s.plan(shared), "replace /etc/nnf-dm/service.token\nrestart nnf-dm.service\n"+stop)
			s.install(shared)
			s.expectTimer("back", "disabled inactive")
			expectChanges(t, "back again", s.plan(shared), "")
			if s.Get(timerUnit) != "" {
				t.Error("the unit stays")
			}

			s.install(own)
			got := changes(s.uninstall(own))
			for line := range strings.Lines(stop) {
				if !strings.Contains(got, line) {
					t.Errorf("uninstall:\n%s", got)
				}
			}
			s.expectTimer("uninstalled", map[string]string{"packages": "inactive", "programs": "disabled inactive"}[kind])
			if after := s.state(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			s.nothingKept()
			if p, err := s.remove(own, false); err != nil || !p.Empty() {
				t.Errorf("a second uninstall: %v %s", err, changes(p))
			}
		})
	}
}

// What the administrator has decided stays.
func TestTimerOfAdministrator(t *testing.T) {
	for _, tt := range []struct {
		name      string
		prepare   func(*renewing)
		own, back string // the timer
		note      string // with an account of the node
		noteBack  string
	}{
		{"masked", func(s *renewing) { s.Put("run/fake/masked."+timer, "", 0o600) }, "", "",
			"nnf-dm.timer is masked and stays so: nnf-dm renews its token only while jobs use it", ""},
		{"enabled", func(s *renewing) {
			s.Put("run/fake/enabled."+timer, "enabled\n", 0o600)
			s.Put("run/fake/active."+timer, "active\n", 0o600)
		}, "enabled active", "enabled active", "", "nnf-dm.timer stays enabled, because nnf-deploy has not enabled it"},
		{"enabled for the next boot", func(s *renewing) { s.Put("run/fake/enabled."+timer, "enabled\n", 0o600) },
			"enabled active", "enabled active", "", "nnf-dm.timer stays enabled, because nnf-deploy has not enabled it"},
		{"own unit", func(s *renewing) { s.Put(timerUnit, "[Timer]\n[Install]\n", 0o644) }, "enabled active recorded", "disabled inactive", "", ""},
		// nnf-deploy cannot enable it, but starts it.
		{"own unit without [Install]", func(s *renewing) { s.Put(timerUnit, "[Timer]\n", 0o644) }, "enabled active", "enabled active", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newRenewing(t)
			files := s.packages("1", "exit 0", "")
			s.install(s.want(files, s.shared))
			tt.prepare(s)
			unit := s.Get(timerUnit)
			for _, step := range []struct{ token, timer, note string }{{s.shared, "", ""}, {s.own, tt.own, tt.note}, {s.shared, tt.back, tt.noteBack}} {
				w := s.want(files, step.token)
				p := s.plan(w)
				if got := strings.Join(p.Notes, "\n"); got != step.note {
					t.Errorf("the notes are %q, want %q", got, step.note)
				}
				s.install(w)
				if step.timer != "" || step.token == s.own {
					s.expectTimer(step.token, step.timer)
				}
				expectChanges(t, "again", s.plan(w), "")
			}
			s.uninstall(s.want(files, s.shared))
			if s.Get(timerUnit) != unit {
				t.Error("uninstall has changed a unit of the administrator")
			}
			if got := s.Get("run/fake/active." + timer); got == "active\n" {
				t.Error("uninstall has left the timer running")
			}
		})
	}
}

// A run was killed between two steps: the next one completes it, in either direction.
func TestTimerAfterCrash(t *testing.T) {
	s := newRenewing(t)
	files := s.bare("1", "exit 0")
	s.install(s.want(files, s.own))
	s.Put("run/fake/enabled."+timer, "disabled\n", 0o600)
	s.Put("run/fake/active."+timer, "inactive\n", 0o600)
	s.install(s.want(files, s.own))
	s.expectTimer("recorded, but not enabled", "enabled active recorded")
	s.Put("run/fake/enabled."+timer, "disabled\n", 0o600)
	s.Put("run/fake/active."+timer, "inactive\n", 0o600)
	s.install(s.want(files, s.shared))
	s.expectTimer("disabled, but recorded", "disabled inactive")
	if s.Get(timerUnit) != "" {
		t.Error("the unit stays")
	}
}

// An administrator has removed the unit that nnf-deploy has written, and may have masked it then.
func TestTimerUnitIsGone(t *testing.T) {
	for _, masked := range []bool{false, true} {
		s := newRenewing(t)
		files := s.bare("1", "exit 0")
		s.install(s.want(files, s.own))
		if err := os.Remove(s.Root + timerUnit); err != nil {
			t.Fatal(err)
		}
		if masked {
			link(t, "/dev/null", s.Root+timerUnit)
			s.Put("run/fake/masked."+timer, "", 0o600)
			if p := s.plan(s.want(files, s.own)); !p.Empty() || len(p.Notes) != 1 {
				t.Errorf("masked:\n%s%q", changes(p), p.Notes)
			}
		}
		s.install(s.want(files, s.shared))
		if got := s.Get("run/fake/active." + timer); got != "inactive\n" || s.Get(recordPath) != "" {
			t.Errorf("masked %v: the timer is %q", masked, s.timer())
		}
		expectChanges(t, "again", s.plan(s.want(files, s.shared)), "")
		if _, err := os.Lstat(s.Root + timerUnit); (err == nil) != masked {
			t.Errorf("masked %v: %v", masked, err)
		}
	}
}

// If a later step fails, the timer is as before.
func TestTimerIsRestored(t *testing.T) {
	s := newRenewing(t)
	files := s.packages("1", "exit 0", "")
	s.install(s.want(files, s.shared))
	before := s.state()
	refuse := func(call string) { s.Put("run/fake/refuse", call+"\n", 0o600) }
	refuse("start " + timer)
	o, err := s.apply(s.want(files, s.own))
	if err == nil || o.State != "old" || s.state() != before || !strings.Contains(err.Error(), "systemctl enable --now "+timer) {
		t.Errorf("%v %+v\n%s\n%s", err, o, before, s.state())
	}
	s.expectTimer("not started", "disabled inactive")
	refuse("")
	s.install(s.want(files, s.own))
	before = s.state()
	refuse("disable " + timer)
	if o, err := s.apply(s.want(files, s.shared)); err == nil || o.State != "old" || s.state() != before {
		t.Errorf("%v %+v\n%s\n%s", err, o, before, s.state())
	}
	s.expectTimer("not disabled", "enabled active recorded")
	// A removal that fails leaves the timer, too.
	refuse("")
	if err := os.Remove(s.Root + "/run/fake/rpm/nnf-dm"); err != nil {
		t.Fatal(err)
	}
	w := s.want(files, s.own)
	r, err := Probe(t.Context(), s.shell, w)
	if err != nil {
		t.Fatal(err)
	}
	r.Packages["nnf-dm"] = Installed{NEVRA: "nnf-dm"}
	p, err := Remove(w, r, false)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err == nil || o.State != "partly" {
		t.Errorf("%v %+v", err, o)
	}
	s.expectTimer("not removed", "enabled active recorded")
}

// A package without the timer is not an error, if its daemon can renew. One that takes over from
// programs replaces the timer of nnf-deploy.
func TestTimerAndVersions(t *testing.T) {
	s := newRenewing(t)
	old := s.packages("1", "exit 0", "# no timer\n")
	o := s.install(s.want(old, s.own))
	if len(o.Notes) != 1 || o.Notes[0] != timer+" does not exist in the installed version" {
		t.Errorf("%q", o.Notes)
	}
	p := s.plan(s.want(old, s.own))
	if !p.Empty() || len(p.Notes) != 1 || !strings.HasPrefix(p.Notes[0], "the package of nnf-dm on the node has no "+timer) {
		t.Errorf("%s%q", changes(p), p.Notes)
	}
	s.install(s.want(s.packages("2", "exit 0", ""), s.own))
	s.expectTimer("updated", "enabled active recorded")

	s = newRenewing(t)
	s.install(s.want(s.bare("1", "exit 0"), s.own))
	w := s.want(s.packages("2", "exit 0", ""), s.own)
	if got := changes(s.plan(w)); !strings.Contains(got, "remove "+timerUnit+" (it hides the unit of the package)\n") {
		t.Errorf("%s", got)
	}
	s.install(w)
	if s.Get(timerUnit) != "" {
		t.Error("the unit of nnf-deploy hides that of the package")
	}
	s.expectTimer("a package", "enabled active recorded")
	expectChanges(t, "a package", s.plan(w), "")
}

// A daemon that cannot renew its token gets none that expires, and nothing is changed.
func TestTooOldToRenew(t *testing.T) {
	s := newRenewing(t)
	files := s.packages("1", "exit 0", "")
	s.install(s.want(files, s.shared))
	for _, tt := range []struct {
		name   string
		status *systemd.Status
		want   string
	}{
		{"without renewal", &systemd.Status{Version: systemd.StatusVersion, ProgramVersion: "1.3"}, "nnf-dm 1.3 on the node cannot renew a token of its own account: the daemon would lose its access when the token expires"},
		{"without an answer", nil, "nnf-dm 1 on the node cannot renew a token of its own account: it gives no valid answer to status -o json"},
	} {
		s.setStatus("nnf-dm", tt.status)
		for _, p := range []payload.Payload{{}, files} {
			w := s.want(p, s.own)
			r, err := Probe(t.Context(), s.shell, w)
			if err != nil {
				t.Fatal(err)
			}
			problem := (*Problem)(nil)
			if _, err := Diff(w, r); !errors.As(err, &problem) || problem.Text != tt.want || !strings.Contains(problem.Hint, "--rpm") {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if p := s.plan(s.want(s.packages("2", "exit 0", ""), s.own)); p.Empty() {
			t.Errorf("%s: no update", tt.name)
		}
		expectChanges(t, tt.name+": shared", s.plan(s.want(files, s.shared)), "")
	}
	for kind, old := range map[string]payload.Payload{"packages": s.packages("0", "exit 0", ""), "programs": s.bare("0", "exit 0")} {
		s := newRenewing(t)
		current := s.packages("1", "exit 0", "")
		if kind == "programs" {
			current = s.bare("1", "exit 0")
		}
		s.install(s.want(current, s.shared))
		s.setStatus("nnf-dm", &systemd.Status{Version: systemd.StatusVersion})
		before := s.state()
		if o, err := s.apply(s.want(old, s.own)); err == nil || o.State != "old" || !strings.Contains(err.Error(), "this version cannot renew a token of its own account") || s.state() != before {
			t.Errorf("%s of an old version: %v %+v\n%s\n%s", kind, err, o, before, s.state())
		}
	}
	empty := newRenewing(t)
	r, err := Probe(t.Context(), empty.shell, empty.want(payload.Payload{}, s.own))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Renews(&empty.want(payload.Payload{}, s.own).Daemons[0]); err == nil || err.Error() != "nnf-dm is not installed on the node" {
		t.Errorf("not installed: %v", err)
	}
	s.setStatus("nnf-dm", &systemd.Status{Version: systemd.StatusVersion, Renewal: &systemd.RenewalStatus{Directory: dmDirectory}})
	if p := s.plan(s.want(payload.Payload{}, s.own)); len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "kubernetes.renew_token is false") {
		t.Errorf("renewal is off: %q", p.Notes)
	}
}

// Without packages, nnf-dm gets its state directory, which it cannot create.
// A token that systemd decrypts is not replaced.
func TestEncryptedToken(t *testing.T) {
	s := newRenewing(t)
	s.install(s.want(s.packages("1", "exit 0", ""), s.shared))
	const path = "/etc/systemd/system/nnf-dm.service.d/55-encrypted-credentials.conf"
	s.Put(path[1:], "[Service]\n# LoadCredentialEncrypted=x\nLoadCredential=service.token:/etc/nnf-dm/service.token\n", 0o644)
	expectChanges(t, "LoadCredential", s.plan(s.want(payload.Payload{}, s.shared)), "")
	s.Put(path[1:], "[Service]\n LoadCredentialEncrypted=service.token:/etc/nnf-dm/service.token.cred\n", 0o644)
	for name, token := range map[string]string{"shared": s.shared, "own": s.own} {
		w := s.want(payload.Payload{}, token)
		r, err := Probe(t.Context(), s.shell, w)
		if err != nil {
			t.Fatal(err)
		}
		problem := (*Problem)(nil)
		if _, err := Diff(w, r); !errors.As(err, &problem) || problem.Text != "systemd decrypts the token of nnf-dm on the node ("+path+"), so nnf-deploy cannot replace it" || problem.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStateDirectory(t *testing.T) {
	s := newRenewing(t)
	w := s.want(s.bare("1", "exit 0"), s.shared)
	if got := changes(s.plan(w)); !strings.Contains(got, "write "+dmDirectory+"\n") || strings.Contains(got, "/var/lib/clientmountd") {
		t.Errorf("%s", got)
	}
	s.install(w)
	r, err := Probe(t.Context(), s.shell, w)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Files[dmDirectory]; got != (FileState{"directory", "700", "nnf-dm:nnf-dm"}) {
		t.Errorf("%+v", got)
	}
	if err := os.Chmod(s.Root+dmDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	expectChanges(t, "mode", s.plan(w), "permissions "+dmDirectory+"\n")
	s.install(w)
	expectChanges(t, "again", s.plan(w), "")
	// The run that has created it was interrupted.
	s.Put("var/lib/nnf-deploy/stage/made", dmDirectory+"\n", 0o600)
	w = s.want(w.Payload, s.own)
	s.install(w)
	expectChanges(t, "after an interruption", s.plan(w), "")
	s.uninstall(w)
	if got := s.Files("var/lib/nnf-dm"); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
	// A failed installation leaves none.
	bad := s.want(s.bare("1", "exit 0"), s.shared)
	s.Put("run/fake/refuse", "start nnf-dm.socket\n", 0o600)
	if o, err := s.apply(bad); err == nil || o.State != "old" {
		t.Errorf("%v %+v", err, o)
	}
	if got := s.Files("var/lib/nnf-dm"); len(got) > 0 {
		t.Errorf("left behind after a failure: %v", got)
	}
	s.Put("run/fake/refuse", "", 0o600)
	// The administrator has moved it.
	s.Put("persistent/x", "", 0o600)
	link(t, s.Root+"/persistent", s.Root+dmDirectory)
	if got := changes(s.plan(w)); strings.Contains(got, dmDirectory+"\n") {
		t.Errorf("a link:\n%s", got)
	}
}

// The tokens that a daemon has stored are removed wherever it stores them, with those that a crash
// has left behind. A process of the daemon's user cannot direct the removal elsewhere.
func TestStoredTokens(t *testing.T) {
	const elsewhere = "/persistent/dm"
	for _, verb := range []string{"shared", "uninstall"} {
		t.Run(verb, func(t *testing.T) {
			s := newRenewing(t)
			files := s.packages("1", "exit 0", "")
			own, shared := s.want(files, s.own), s.want(files, s.shared)
			report := func(dir string) {
				s.setStatus("nnf-dm", &systemd.Status{Version: systemd.StatusVersion, Renewal: &systemd.RenewalStatus{Enabled: true, Directory: dir}})
			}
			plan := func() (p *Plan) {
				r, err := Probe(t.Context(), s.shell, own)
				if err == nil && verb == "shared" {
					p, err = Diff(shared, r)
				} else if err == nil {
					p, err = Remove(own, r, false)
				}
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			run := func() *Outcome {
				o, err := Apply(t.Context(), t.Context(), s.shell, s.Name, plan(), func(string) {})
				if err != nil {
					t.Fatalf("%v %+v", err, o)
				}
				return o
			}
			put := func(dir, owner string) {
				for _, name := range product.StoredFiles {
					s.Put(dir+"/"+name, s.own, 0o600)
				}
				s.setOwner(dir, owner)
			}
			s.install(own)
			report(elsewhere)
			put(dmDirectory, "nnf-dm:nnf-dm")
			put(elsewhere, "nnf-dm:nnf-dm")
			for _, dir := range []string{dmDirectory, elsewhere} {
				for _, name := range product.StoredFiles {
					if got := changes(plan()); !strings.Contains(got, "remove "+dir+"/"+name+"\n") {
						t.Errorf("no %s/%s in\n%s", dir, name, got)
					}
				}
			}
			if o := run(); len(o.Notes) > 0 {
				t.Errorf("%q", o.Notes)
			}
			for path := range s.Files("var/lib/nnf-dm", "persistent") {
				if strings.Contains(path, "token") {
					t.Errorf("left behind: %s", path)
				}
			}

			// nnf-dm reports the directory of another user, through a link.
			s.install(own)
			put("/victim", "root:root")
			link(t, s.Root+"/victim", s.Root+"/persistent/link")
			report("/persistent/link")
			if o := run(); len(o.Notes) != len(product.StoredFiles) || !strings.Contains(o.Notes[0], "/persistent/link/service.token stays: its directory does not belong to nnf-dm") {
				t.Errorf("%q", o.Notes)
			}
			if got := changes(plan()); strings.Contains(got, "link") || verb == "shared" && got != "" {
				t.Errorf("the next run would change\n%s", got)
			}
			for _, name := range product.StoredFiles {
				if s.Get("/victim/"+name) != s.own {
					t.Errorf("/victim/%s was removed", name)
				}
			}

			// Names that cannot be searched are reported.
			s.install(own)
			report("/persistent/a b")
			if p := plan(); len(p.Notes) != 1 || p.Notes[0] != `nnf-dm may have stored a token in "/persistent/a b": remove it` {
				t.Errorf("%q", p.Notes)
			}
		})
	}
}

// setOwner sets the owner of a directory, as the fake chown does.
func (s *renewing) setOwner(dir, owner string) {
	s.t.Helper()
	st, err := os.Stat(s.Root + dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Put(fmt.Sprintf("run/fake/owner/%d", st.Sys().(*syscall.Stat_t).Ino), owner+"\n", 0o600)
}

// The daemon stores its token in the directory of its token file: the installed token is not removed.
func TestStoredInPlace(t *testing.T) {
	s := newRenewing(t)
	files := s.packages("1", "exit 0", "")
	s.setStatus("nnf-dm", &systemd.Status{Version: systemd.StatusVersion, Renewal: &systemd.RenewalStatus{Enabled: true, Directory: "/etc/nnf-dm"}})
	for _, token := range []string{s.own, s.shared} {
		w := s.want(files, token)
		s.install(w)
		expectChanges(t, "again", s.plan(w), "")
		if s.Get("etc/nnf-dm/service.token") != token {
			t.Error("the installed token was removed")
		}
	}
}

// systemctl does not remove the link of a timer that an administrator has masked after nnf-deploy enabled
// it.
func TestMaskedTimerIsDisabled(t *testing.T) {
	for _, uninstall := range []bool{false, true} {
		s := newRenewing(t)
		files := s.packages("1", "exit 0", "")
		s.install(s.want(files, s.own))
		p, _ := product.Of("nnf-dm")
		wants := s.Root + filepath.Dir(p.TimerLink())
		if err := os.MkdirAll(wants, 0o755); err != nil {
			t.Fatal(err)
		}
		link(t, "/usr/lib/systemd/system/"+timer, s.Root+p.TimerLink())
		link(t, "/dev/null", s.Root+timerUnit)
		s.Put("run/fake/masked."+timer, "", 0o600)
		if uninstall {
			s.uninstall(s.want(files, s.own))
		} else {
			s.install(s.want(files, s.shared))
		}
		if list, err := os.ReadDir(wants); len(list) > 0 || uninstall != os.IsNotExist(err) {
			t.Errorf("uninstall %v: %v %v", uninstall, list, err)
		}
		if _, err := os.Lstat(s.Root + timerUnit); err != nil {
			t.Errorf("the administrator's mask: %v", err)
		}
	}
}
