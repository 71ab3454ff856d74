package target

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// Untrusted text is never executed: contents, arguments, and files on the node.
func TestUntrustedTextIsNotExecuted(t *testing.T) {
	s := newTestNode(t)
	trap := filepath.Join(t.TempDir(), "executed")
	evil := "'; touch " + trap + " #\n$(touch " + trap + ")\n`touch " + trap + "`\"; touch " + trap + "\n"
	w := wanted(s.packages("1", "exit 0", ""))
	w.Host = `api"; $(touch ` + trap + `)`
	w.Daemons[0].Token, w.Daemons[0].CA = []byte(evil), []byte(evil)
	w.Daemons[0].Arguments = []string{"--x=$(touch " + trap + ")", "a'b", `c"d`, "%n $HOME"}
	w.Daemons[0].Environment = []Variable{{"GOGC", "`touch " + trap + "`"}}
	dir := "etc/systemd/system/clientmountd.service.d/"
	s.Put(dir+"$(touch "+strings.ReplaceAll(trap, "/", "_")+").conf", "[Service]\n", 0o644)
	s.Put(dir+"line\nbreak.conf", "[Service]\n", 0o644)
	s.Put(dir+"evil.conf", evil, 0o644)
	s.Put("run/fake/status.clientmountd.service", evil, 0o644)
	s.Put("run/fake/journal", evil, 0o644)
	s.install(w)
	if s.Get("etc/clientmountd/service.token") != evil {
		t.Error("the token was changed")
	}
	for _, want := range []string{`"--x=$$(touch ` + trap + `)" "a'b" "c\"d" "%%n $$HOME"`, "Environment=\"GOGC=`touch " + trap + "`\""} {
		if text := s.Get(dir + "50-nnf-deploy.conf"); !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	if text := s.Get("etc/clientmountd/config.d/50-nnf-deploy.toml"); !strings.Contains(text, `service_host = "api\"; $(touch `) {
		t.Error(text)
	}
	p, err := s.remove(w, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("untrusted text was executed")
	}
}

// Invalid names of daemons are refused before any node is contacted.
func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		d    Daemon
		want string
	}{
		{Daemon{Name: "nnf-data-movement", Bin: "nnf-dm"}, ""},
		{Daemon{Name: "nnf-fence"}, ""},
		{Daemon{Name: "../x"}, "is not a valid directory name"},
		{Daemon{Name: ".."}, "is not a valid directory name"},
		{Daemon{Name: "a b"}, "is not a valid directory name"},
		{Daemon{Name: "a\nb"}, "is not a valid directory name"},
		{Daemon{Name: ""}, "is not a valid directory name"},
		{Daemon{Name: "x", Bin: "rm"}, "is not supported"},
		{Daemon{Name: "x", Bin: "nnf-dm", Arguments: []string{"a\nb"}}, "control character"},
		{Daemon{Name: "x", Bin: "nnf-dm", Environment: []Variable{{"A B", "c"}}}, "not a valid name of an environment variable"},
	} {
		err := (&Want{Daemons: []Daemon{tt.d}}).Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.d, err)
		}
	}
}

// A symbolic link in place of a file is replaced, and its target is not changed.
func TestLinksAreReplaced(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	s.Put("somewhere/secret", "mine", 0o600)
	token := filepath.Join(s.Root, "etc/clientmountd/service.token")
	if err := errors.Join(os.Remove(token), os.Symlink(filepath.Join(s.Root, "somewhere/secret"), token)); err != nil {
		t.Fatal(err)
	}
	s.install(w)
	if st, err := os.Lstat(token); err != nil || !st.Mode().IsRegular() || s.Get("etc/clientmountd/service.token") != "token-1" || s.Get("somewhere/secret") != "mine" {
		t.Errorf("%v %v", st, err)
	}
	state := filepath.Join(s.Root, "var/lib/nnf-deploy")
	if err := errors.Join(os.RemoveAll(state), os.Symlink(s.Root, state)); err != nil {
		t.Fatal(err)
	}
	w.Force = true
	if _, err := s.apply(w); err == nil || !strings.Contains(err.Error(), "/var/lib/nnf-deploy is a symbolic link") {
		t.Errorf("%v", err)
	}
}

// Errors that are detected before anything is sent.
func TestUnusableNodes(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want, hint string }{
		{"full disk", "run/fake/free", "300", "the file system of /var/lib/nnf-deploy is full: 0.3 MiB free, 1.0 MiB needed", "free space"},
		{"not root", "run/fake/uid", "1000", "the login is not root", "--sudo"},
		{"other architecture", "run/fake/arch", "riscv64", "the given clientmountd is for x86_64, but the node is riscv64", "for this architecture"},
		{"masked", "run/fake/masked.clientmountd.service", "", "clientmountd.service is masked on the node", "systemctl unmask clientmountd.service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestNode(t)
			before := s.state()
			s.Put(tt.file, tt.text, 0o644)
			w := wanted(s.packages("1", "exit 0", ""))
			r, err := Probe(t.Context(), s.shell, w)
			if err == nil {
				_, err = Diff(w, r)
			}
			if p := (*Problem)(nil); !errors.As(err, &p) || p.Text != tt.want || !strings.Contains(p.Hint, tt.hint) {
				t.Errorf("%v", err)
			}
			if s.state() != before {
				t.Error("the node has changed")
			}
		})
	}
}

// After an error while staging, nothing is changed, and nothing is left behind.
func TestStagingFails(t *testing.T) {
	for _, tt := range []struct{ name, path, want string }{
		{"a directory in place of a file", "etc/clientmountd/service.token/x", "/etc/clientmountd/service.token is a directory"},
		{"a file in place of a directory", "etc/nnf-dm", "/etc/nnf-dm is not a directory"},
		{"a file in place of the state directory", "var/lib/nnf-deploy", "cannot create /var/lib/nnf-deploy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestNode(t)
			s.Put(tt.path, "", 0o644)
			before := s.state()
			if _, err := s.apply(wanted(s.packages("1", "exit 0", ""))); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if after := s.state(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			s.nothingStaged()
		})
	}
}

func TestConnectionErrors(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.bare("1", "exit 0"))
	for fault, want := range map[string]remote.Kind{"dead": remote.Unreachable, "hostkey": remote.HostKey, "denied": remote.Denied, "sudo": remote.Root} {
		s.Fault(fault)
		_, err := Probe(t.Context(), s.shell, w)
		if e := (*remote.Error)(nil); !errors.As(err, &e) || e.Kind != want || e.Hint == "" {
			t.Errorf("%s: %#v", fault, err)
		}
	}
}

// flood is a node that sends 256 MiB.
type flood struct{ line string }

func (f flood) Run(_ context.Context, _ string, _ remote.Script, _ io.Reader, stdout io.Writer) error {
	text := strings.Repeat(f.line, 1<<20/len(f.line))
	for range 256 {
		if _, err := io.WriteString(stdout, text); err != nil {
			return err
		}
	}
	return nil
}

// A node that sends too much is an error, and the used memory is bounded.
func TestFlood(t *testing.T) {
	for _, line := range []string{"x", "note\tx\n", "nnf-deploy\tprobe\t1\n", "journal\ty\n"} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, err := Probe(t.Context(), flood{line}, wanted(pack("1")))
		if p := (*Problem)(nil); !errors.As(err, &p) {
			t.Errorf("%q: %v", line, err)
		}
		o, err := Apply(t.Context(), t.Context(), flood{line}, "n", new(Plan), func(string) {})
		if err == nil {
			t.Errorf("%q: no error: %+v", line, o)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 64<<20 {
			t.Errorf("%q: %d MiB are still in use", line, more>>20)
		}
	}
}

// FuzzReport checks that any answer of a node is an error, or leads to a plan with a valid
// manifest.
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
			t.Errorf("clientmountd is removed although its mounts are unknown: %s", changes(p))
		}
		if p, err := Remove(w, r, true); err == nil {
			plans = append(plans, p)
		}
		for _, p := range plans {
			for _, s := range p.steps {
				if strings.ContainsAny(s, "\n\t'\"$`\\;*?") {
					t.Errorf("the manifest contains %q", s)
				}
			}
		}
	})
}

// FuzzOutcome checks that only an answer with the run and "ok" is a success, in pieces of any
// size.
func FuzzOutcome(f *testing.F) {
	const run = "0123456789abcdef"
	f.Add("staged\nswitching\nresult\t"+run+"\tok\t\t\nnote\tx\nconfirm\n", 3)
	f.Add("result\t"+run+"\told\tstart: x\thint\njournal\ta\tb\nstatus\tc\n", 1)
	f.Add("result\tffff\tok\t\t\nerror\tx\ty\nresult\t"+run+"\tok", 7)
	f.Add("confirm\nconfirm\nstaged\tx\nresult\n\nerror\n", 2)
	f.Fuzz(func(t *testing.T, answer string, size int) {
		parse := func(size int) (*outcomeReader, string) {
			words := ""
			r := &outcomeReader{signals: map[string]func(){}}
			for _, word := range []string{"staged", "switching", "confirm"} {
				r.signals[word] = func() { words += word + " " }
			}
			for rest := []byte(answer); len(rest) > 0; {
				n := min(max(size, 1), len(rest))
				if _, err := r.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			return r, words
		}
		whole, words := parse(len(answer))
		pieces, same := parse(size)
		if !reflect.DeepEqual(whole.outcome, pieces.outcome) || words != same {
			t.Fatalf("%+v %q, in pieces of %d: %+v %q", whole.outcome, words, size, pieces.outcome, same)
		}
		if _, err := whole.outcome.check(run); err == nil && !strings.Contains(answer, "result\t"+run+"\tok\t") {
			t.Errorf("%q is a success", answer)
		}
	})
}

// other makes a path belong to another user than root, for the fake stat.
func (s *testNode) other(path string) {
	s.t.Helper()
	st, err := os.Lstat(filepath.Join(s.Root, path))
	if err != nil {
		s.t.Fatal(err)
	}
	s.Put(fmt.Sprint("run/fake/uids/", st.Sys().(*syscall.Stat_t).Ino), "1000\n", 0o600)
}

// link makes a symbolic link of another user.
func (s *testNode) link(to, path string) {
	s.t.Helper()
	if err := os.Symlink(filepath.Join(s.Root, to), filepath.Join(s.Root, path)); err != nil {
		s.t.Fatal(err)
	}
	s.other(path)
}

// In a directory that other users could write to, nothing is written through their links, and the mode
// and owner of what they point to are not changed.
func TestLinksOfOtherUsers(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		want       string // "": the run succeeds
	}{
		{"in place of a new file", "etc/nnf-dm/service.token.nnf-deploy-new", ""},
		{"in place of a backup", "etc/nnf-dm/service.token.nnf-deploy-old", ""},
		{"in place of a directory", "etc/nnf-dm/config.d", "/etc/nnf-dm/config.d is a symbolic link of another user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestNode(t)
			w := wanted(s.bare("1", "exit 0"))
			s.install(w)
			if err := os.RemoveAll(filepath.Join(s.Root, tt.path)); err != nil {
				t.Fatal(err)
			}
			s.Put("somewhere/secret", "mine", 0o600)
			to := "somewhere/secret"
			if tt.want != "" {
				to = "somewhere"
			}
			s.link(to, tt.path)
			before := fmt.Sprint(s.Files("somewhere"))
			w.Daemons[1].Token = []byte("token-2b")
			w.Host = "10.0.0.6"
			_, err := s.apply(w)
			switch want := tt.want; {
			case (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want):
				t.Errorf("%v", err)
			case err == nil && s.Get("etc/nnf-dm/service.token") != "token-2b":
				t.Error("the token was not replaced")
			}
			if after := fmt.Sprint(s.Files("somewhere")); after != before {
				t.Errorf("%s, before: %s", after, before)
			}
			s.nothingStaged()
		})
	}
}

// A link that replaces a staged file before the switch is an error.
func TestStagedFileIsReplaced(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.bare("1", "exit 0"))
	s.install(w)
	s.Put("somewhere/secret", "mine", 0o600)
	before := s.state() + fmt.Sprint(s.Files("somewhere"))
	w.Daemons[1].Token = []byte("token-2b")
	p := s.plan(w)
	_, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
		if step == "switch" {
			staged := "etc/nnf-dm/service.token.nnf-deploy-new"
			if err := os.Remove(filepath.Join(s.Root, staged)); err != nil {
				t.Error(err)
			}
			s.link("somewhere/secret", staged)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "/etc/nnf-dm/service.token: another user has replaced the new file; the previous state was restored") {
		t.Errorf("%v", err)
	}
	if after := s.state() + fmt.Sprint(s.Files("somewhere")); after != before {
		t.Errorf("%s, before: %s", after, before)
	}
}
